//! Interim responses (1xx) on their way from a server to a client, while the request waits for its final response.
//!
//! The two ends of a request are far apart, and nearly no request has interim responses. So they are not a parameter of
//! everything in between: what is offered while an answer is polled is what the answer's client gets (RFC 9110, section 15.2).

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Response, StatusCode};

use crate::headers;

/// Interim responses that one request may have; a server that sends more is not heard.
const MOST: usize = 16;

tokio::task_local! {
    static OFFERED: RefCell<Vec<Response<()>>>;
}

/// Offers an interim response to the client whose answer is polled now.
///
/// Not 100, which the client's own proxy says, nor 101, which is no interim one.
pub fn offer(mut interim: Response<()>) {
    let status = interim.status();
    if status.is_informational() && status != StatusCode::CONTINUE && status != StatusCode::SWITCHING_PROTOCOLS {
        headers::strip_hop_by_hop(interim.headers_mut());
        headers::strip_internal(interim.headers_mut());
        // Whoever polls an answer of the proxy's own listens to nobody.
        let _ = OFFERED.try_with(|offered| offered.borrow_mut().push(interim));
    }
}

/// Polls an answer, and passes on what is offered meanwhile; `passed` counts that over all polls.
pub fn poll<F: Future>(
    answer: Pin<&mut F>,
    passed: &mut usize,
    cx: &mut Context<'_>,
    mut pass: impl FnMut(Response<()>),
) -> Poll<F::Output> {
    OFFERED.sync_scope(RefCell::default(), || {
        let polled = answer.poll(cx);
        for interim in OFFERED.with(RefCell::take) {
            if *passed < MOST {
                *passed += 1;
                pass(interim);
            }
        }
        polled
    })
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use super::*;

    fn interim(status: u16) -> Response<()> {
        Response::builder().status(status).header("connection", "x-hop").header("x-hop", "1").body(()).unwrap()
    }

    #[tokio::test]
    async fn what_is_offered_is_passed_to_the_client_of_the_answer_that_is_polled() {
        offer(interim(103));
        let mut answer = pin!(async {
            for status in [100, 101, 102, 103, 200] {
                offer(interim(status));
            }
            tokio::task::yield_now().await;
            (0..100).for_each(|_| offer(interim(103)));
            "final"
        });
        let (mut passed, mut heard) = (0, Vec::new());
        let answered = poll_fn(|cx| poll(answer.as_mut(), &mut passed, cx, |interim| heard.push(interim))).await;
        assert_eq!((answered, heard.len(), passed), ("final", MOST, MOST));
        assert_eq!(heard.iter().take(3).map(|one| one.status().as_u16()).collect::<Vec<_>>(), [102, 103, 103]);
        assert!(heard.iter().all(|one| one.headers().is_empty()));
    }
}
