//! Invented names: common given names, and family names put together from common parts.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

const MALE: [&str; 40] = [
    "สมชาย",
    "สมศักดิ์",
    "ประเสริฐ",
    "วิชัย",
    "สุรชัย",
    "อนันต์",
    "ธนพล",
    "กิตติ",
    "ณัฐพล",
    "พงษ์ศักดิ์",
    "ชัยวัฒน์",
    "ศุภชัย",
    "วีระ",
    "มานพ",
    "ประยุทธ",
    "สุทิน",
    "บุญมี",
    "ทองดี",
    "คำแสน",
    "อดิศักดิ์",
    "ธีรเดช",
    "ปิยะ",
    "จักรพงษ์",
    "วรวุฒิ",
    "นพดล",
    "สมพร",
    "ไพโรจน์",
    "เกรียงไกร",
    "อภิชาติ",
    "ธวัชชัย",
    "สิทธิพร",
    "ภาณุพงศ์",
    "รัชพล",
    "เดชา",
    "ยุทธนา",
    "กฤษณะ",
    "พีรพล",
    "ชาญชัย",
    "วุฒิชัย",
    "อัครเดช",
];

const FEMALE: [&str; 40] = [
    "สมหญิง",
    "สมใจ",
    "มาลี",
    "ประภา",
    "สุนีย์",
    "วันเพ็ญ",
    "อรุณี",
    "กาญจนา",
    "นงลักษณ์",
    "พรทิพย์",
    "รัตนา",
    "ศิริพร",
    "จันทร์เพ็ญ",
    "บุญเรือน",
    "ทองใบ",
    "คำปุ่น",
    "สุภาพร",
    "วิไลวรรณ",
    "ปราณี",
    "ดวงใจ",
    "อัญชลี",
    "นิตยา",
    "ลัดดา",
    "พิมพ์ใจ",
    "ณัฐธิดา",
    "ชุติมา",
    "เพ็ญศรี",
    "สายฝน",
    "จิราพร",
    "กมลวรรณ",
    "ปวีณา",
    "ธิดารัตน์",
    "อุไรวรรณ",
    "เกษร",
    "ยุพิน",
    "แสงเดือน",
    "น้ำฝน",
    "ขวัญใจ",
    "ภัทรา",
    "รุ่งนภา",
];

const FAMILY_BEGIN: [&str; 24] = [
    "ทอง",
    "ศรี",
    "วงศ์",
    "บุญ",
    "แก้ว",
    "สุข",
    "จันทร์",
    "พงษ์",
    "ชัย",
    "เพชร",
    "รัตน",
    "แสง",
    "คำ",
    "ไชย",
    "สิงห์",
    "อินทร์",
    "พรหม",
    "สมบัติ",
    "มั่น",
    "เจริญ",
    "ประ",
    "วิเศษ",
    "นิล",
    "กิตติ",
];

const FAMILY_END: [&str; 24] = [
    "สุข",
    "วงศ์",
    "ทรัพย์",
    "ดี",
    "คำ",
    "เรือง",
    "ชัย",
    "ศรี",
    "แก้ว",
    "งาม",
    "พันธ์",
    "มณี",
    "กุล",
    "ใจ",
    "ภักดี",
    "รักษ์",
    "สวัสดิ์",
    "ทอง",
    "เสริฐ",
    "ผล",
    "ลาภ",
    "จิตต์",
    "ธรรม",
    "รุ่ง",
];

/// A person's sex, title, given and family name.
pub(super) fn person(chance: &mut ChaCha8Rng, is_child: bool) -> (&'static str, &'static str, String) {
    let is_male = chance.random_bool(0.5);
    let (sex, given) =
        if is_male { ("ชาย", pick(chance, &MALE)) } else { ("หญิง", pick(chance, &FEMALE)) };
    let title = match (is_male, is_child) {
        (true, true) => *pick(chance, &["เด็กชาย", "ด.ช."]),
        (false, true) => *pick(chance, &["เด็กหญิง", "ด.ญ."]),
        (true, false) => "นาย",
        (false, false) => *pick(chance, &["นาง", "นางสาว", "น.ส."]),
    };
    (sex, title, format!("{given} {}", family(chance)))
}

pub(super) fn family(chance: &mut ChaCha8Rng) -> String {
    format!("{}{}", pick(chance, &FAMILY_BEGIN), pick(chance, &FAMILY_END))
}

pub(super) fn pick<'a, T>(chance: &mut ChaCha8Rng, all: &'a [T]) -> &'a T {
    &all[chance.random_range(0..all.len())]
}
