//! The calls of librdkafka that the crate rdkafka does not wrap, or wraps with a panic.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_void};
use std::marker::PhantomData;
use std::ptr;
use std::thread::Thread;

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka_sys as sys;
use ruam_event::TopicId;

/// The headers of a record. rdkafka's own iterator panics on a header whose name is not UTF-8, which
/// anybody may send, and goes through all of them.
#[derive(Clone, Copy)]
pub(crate) struct Headers<'a> {
    headers: *mut sys::rd_kafka_headers_t,
    message: PhantomData<&'a [u8]>,
}

/// The headers of a record; none where it has none.
pub(crate) fn headers<'a>(message: &'a BorrowedMessage<'_>) -> Option<Headers<'a>> {
    let mut headers = ptr::null_mut();
    // SAFETY: the message is alive as long as the borrow, and the pointer is written where the call
    // succeeds.
    let found = unsafe { sys::rd_kafka_message_headers(message.ptr(), &mut headers) };
    let is_found = found == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    is_found.then_some(Headers { headers, message: PhantomData })
}

impl<'a> Headers<'a> {
    /// The last value of a name.
    pub(crate) fn last(self, name: &CStr) -> Option<&'a [u8]> {
        let (mut value, mut len) = (ptr::null(), 0);
        // SAFETY: librdkafka owns the headers and their values, and keeps them until the message is
        // destroyed, which `'a` outlives nowhere. The pointer is read only where the call succeeds.
        unsafe {
            let found = sys::rd_kafka_header_get_last(self.headers, name.as_ptr(), &mut value, &mut len);
            if found != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || value.is_null() {
                return None;
            }
            Some(std::slice::from_raw_parts(value.cast::<u8>(), len))
        }
    }
}

/// What the broker calls a topic and will not call any other; all zero where it gives no ids.
pub(crate) fn topic_id<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout_ms: i32,
) -> Result<TopicId, KafkaError> {
    let failed = |code: sys::rd_kafka_resp_err_t| KafkaError::MetadataFetch(RDKafkaErrorCode::from(code));
    let name = CString::new(topic).map_err(KafkaError::Nul)?;
    // SAFETY: every object that is made here is destroyed by its guard, in the reverse order, after
    // the last use of what it lends; the client outlives the call.
    unsafe {
        let mut names = [name.as_ptr()];
        let topics = Guard(
            sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1),
            sys::rd_kafka_TopicCollection_destroy,
        );
        let queue = Guard(sys::rd_kafka_queue_new(client.native_ptr()), sys::rd_kafka_queue_destroy);
        let kind = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options =
            Guard(sys::rd_kafka_AdminOptions_new(client.native_ptr(), kind), sys::rd_kafka_AdminOptions_destroy);
        sys::rd_kafka_AdminOptions_set_request_timeout(options.0, timeout_ms, ptr::null_mut(), 0);
        sys::rd_kafka_DescribeTopics(client.native_ptr(), topics.0, options.0, queue.0);
        let event = Guard(sys::rd_kafka_queue_poll(queue.0, timeout_ms + 1000), sys::rd_kafka_event_destroy);
        if event.0.is_null() {
            return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut));
        }
        let error = sys::rd_kafka_event_error(event.0);
        if error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(failed(error));
        }
        let mut count = 0;
        let described =
            sys::rd_kafka_DescribeTopics_result_topics(sys::rd_kafka_event_DescribeTopics_result(event.0), &mut count);
        if described.is_null() || count != 1 {
            return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopic));
        }
        let error = sys::rd_kafka_error_code(sys::rd_kafka_TopicDescription_error(*described));
        if error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(failed(error));
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(*described);
        if id.is_null() {
            return Ok(TopicId::default());
        }
        let high = sys::rd_kafka_Uuid_most_significant_bits(id) as u64;
        let low = sys::rd_kafka_Uuid_least_significant_bits(id) as u64;
        Ok(TopicId(u128::from(high) << 64 | u128::from(low)))
    }
}

/// A client's events, the first of which wakes a thread.
pub(crate) struct Events<'a> {
    queue: Guard<sys::rd_kafka_queue_t>,
    /// What librdkafka's threads wake.
    thread: *mut Thread,
    client: PhantomData<&'a ()>,
}

impl<'a> Events<'a> {
    pub(crate) fn waking<C: ClientContext>(client: &'a Client<C>, thread: Thread) -> Self {
        unsafe extern "C" fn wake(_: *mut sys::rd_kafka_t, thread: *mut c_void) {
            // SAFETY: the thread is what was given beside this function, and is freed once librdkafka has been told
            // not to call it any more.
            unsafe { (*thread.cast::<Thread>()).unpark() }
        }
        let thread = Box::into_raw(Box::new(thread));
        // SAFETY: the client outlives what is made here, and the thread lives until the call is taken back.
        let queue = unsafe {
            let queue = Guard(sys::rd_kafka_queue_get_main(client.native_ptr()), sys::rd_kafka_queue_destroy);
            sys::rd_kafka_queue_cb_event_enable(queue.0, Some(wake), thread.cast());
            queue
        };
        Self { queue, thread, client: PhantomData }
    }

    /// Whether there are any. A thread that has seen that there are none is woken by the next.
    pub(crate) fn are_there(&self) -> bool {
        // SAFETY: the queue lives as long as this.
        unsafe { sys::rd_kafka_queue_length(self.queue.0) > 0 }
    }
}

impl Drop for Events<'_> {
    fn drop(&mut self) {
        // SAFETY: librdkafka calls under the lock that this takes, so that none of its threads calls from here on; the
        // thread came from a box, and nobody else frees it.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.queue.0, None, ptr::null_mut());
            drop(Box::from_raw(self.thread));
        }
    }
}

/// Destroys what librdkafka made when it goes out of scope.
struct Guard<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Guard<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the pointer came from the constructor that belongs to this destructor, and
            // nothing else destroys it.
            unsafe { (self.1)(self.0) }
        }
    }
}
