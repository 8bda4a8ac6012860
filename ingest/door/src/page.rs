//! Web pages, which whoever looks at them does not answer for.

use std::net::IpAddr;

use axum::http::{HeaderMap, Uri, header};

/// Whether a browser sends it for a page: one that says where it comes from, or that was led here by another name.
pub fn is_of_a_page(headers: &HeaderMap, uri: &Uri) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = host.and_then(|host| host.parse().ok()).or_else(|| uri.authority().cloned());
    let name = authority.as_ref().map(|authority| authority.host().trim_matches(['[', ']']).to_owned());
    let is_here =
        name.is_none_or(|name| name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()));
    headers.contains_key(header::ORIGIN) || !is_here
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_told_from_programs() {
        let of = |host: &str, origin: bool| {
            let mut headers = HeaderMap::from_iter([(header::HOST, host.parse().unwrap())]);
            if origin {
                headers.insert(header::ORIGIN, "https://example.org".parse().unwrap());
            }
            is_of_a_page(&headers, &Uri::from_static("/v1/sql"))
        };
        for host in ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", "127.0.0.1"] {
            assert!(!of(host, false) && of(host, true), "{host}");
        }
        assert!(of("rebound.example.org:8080", false));
    }
}
