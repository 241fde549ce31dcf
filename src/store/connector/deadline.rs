//! A deadline that the waiting thread shares with the socket to PostgreSQL.
//!
//! Nothing below us ends such a wait when the other side is there and says nothing: `statement_timeout` is kept by the
//! server, TCP keepalive and `TCP_USER_TIMEOUT` are satisfied by a peer that only acknowledges (a paused server, a
//! proxy whose far side is gone), and `postgres` has no timeout of its own.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until, timeout_at};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

/// The moment by which the server must have answered; clones share it with the connection's socket.
///
/// Once a wait has run past it, the connection is of no more use: the statement under way fails with an error whose
/// source is an [`io::Error`] of kind [`io::ErrorKind::TimedOut`], [`postgres::Client::is_closed`] is true, and
/// everything after it fails at once. Whether the server carried the statement out is not known then.
///
/// It is looked at where a wait begins, so setting it from another thread does not shorten one that is under way. An
/// answer that has already arrived is delivered, however late it is.
#[derive(Clone, Debug)]
pub struct Deadline(Arc<SharedDeadline>);

#[derive(Debug)]
struct SharedDeadline {
    origin: Instant,
    /// Nanoseconds after `origin`; 0 is no deadline. 64 bits last for 584 years.
    at: AtomicU64,
    /// Set when the stream has come to its end.
    ended: AtomicBool,
}

impl Deadline {
    pub(super) fn new() -> Deadline {
        Deadline(Arc::new(SharedDeadline {
            origin: Instant::now(),
            at: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }))
    }

    /// Waits end with an error from this moment on; one in the past lets nothing be waited for.
    pub fn set(&self, at: Instant) {
        let after = at.saturating_duration_since(self.0.origin).as_nanos();
        let after = u64::try_from(after).unwrap_or(u64::MAX).max(1);
        // Relaxed: it is read by the thread that set it, while that thread waits; nothing else is published with it.
        self.0.at.store(after, Ordering::Relaxed);
    }

    /// Waits may take for ever again.
    pub fn clear(&self) {
        self.0.at.store(0, Ordering::Relaxed);
    }

    /// Whether the other side has ended the connection, as far as it has been read.
    pub fn has_ended(&self) -> bool {
        self.0.ended.load(Ordering::Relaxed)
    }

    /// Ends an operation at the deadline.
    pub(super) async fn limit<T>(
        &self,
        operation: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        match self.get() {
            Some(at) => timeout_at(at.into(), operation)
                .await
                .unwrap_or_else(|_| Err(timed_out())),
            None => operation.await,
        }
    }

    fn get(&self) -> Option<Instant> {
        match self.0.at.load(Ordering::Relaxed) {
            0 => None,
            after => self.0.origin.checked_add(Duration::from_nanos(after)),
        }
    }
}

/// Any stream of bytes: a socket of either family, or TLS on one.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> ByteStream for T {}

/// A byte stream on which no wait goes past the deadline. `tokio-postgres` reads and writes it.
///
/// Where data is at hand the deadline costs nothing. Where there is a wait it costs one poll of a timer that is left
/// armed from wait to wait: a deadline that has moved on since is noticed when the timer goes off, so that the timer
/// wheel is touched once in the length of a deadline and not once for every statement.
pub(super) struct DeadlineStream {
    bytes: Pin<Box<dyn ByteStream>>,
    /// The channel binding of a TLS connection (RFC 5929).
    end_point: Option<Vec<u8>>,
    deadline: Deadline,
    timer: Option<Pin<Box<Sleep>>>,
    /// Stays, because an answer that comes later would be taken for the answer to the next statement.
    timed_out: bool,
    /// The end of the stream was read; the next read reports it.
    ending: bool,
}

impl DeadlineStream {
    pub(super) fn new(
        bytes: impl ByteStream + 'static,
        end_point: Option<Vec<u8>>,
        deadline: Deadline,
    ) -> DeadlineStream {
        DeadlineStream {
            bytes: Box::pin(bytes),
            end_point,
            deadline,
            timer: None,
            timed_out: false,
            ending: false,
        }
    }

    /// Holds the end of the stream back for one poll, so that the waiting statement gets what was read before it.
    ///
    /// `tokio-postgres` reads PostgreSQL's last message, queues it for the running statement, reads on, finds
    /// the end, and answers "connection closed" before the statement has looked. Then the program could not tell a statement that
    /// PostgreSQL did not run (57P01) from one that it may have run.
    fn hold_end_back<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.deadline.0.ended.store(true, Ordering::Relaxed);
        if self.ending {
            return outcome;
        }
        self.ending = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The result of a poll of the bytes, or an error after the deadline.
    fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            return outcome;
        }
        match self.poll_deadline(cx) {
            Poll::Ready(()) => {
                self.timed_out = true;
                Poll::Ready(Err(timed_out()))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.deadline.get() else {
            return Poll::Pending;
        };
        loop {
            let timer = match &mut self.timer {
                Some(timer) => {
                    if timer.is_elapsed() || timer.deadline().into_std() > at {
                        timer.as_mut().reset(at.into());
                    }
                    timer
                }
                None => self.timer.insert(Box::pin(sleep_until(at.into()))),
            };
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if at <= Instant::now() {
                return Poll::Ready(());
            }
        }
    }
}

impl TlsStream for DeadlineStream {
    fn channel_binding(&self) -> ChannelBinding {
        let end_point = self.end_point.clone();
        end_point.map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the server did not answer in time")
}

impl AsyncRead for DeadlineStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.timed_out {
            return Poll::Ready(Err(timed_out()));
        }
        let before = buf.filled().len();
        let outcome = this.bytes.as_mut().poll_read(cx, buf);
        let ended = match &outcome {
            Poll::Ready(Ok(())) => buf.filled().len() == before && buf.remaining() > 0,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        if ended {
            return this.hold_end_back(cx, outcome);
        }
        this.judge(cx, outcome)
    }
}

impl AsyncWrite for DeadlineStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.timed_out {
            return Poll::Ready(Err(timed_out()));
        }
        let outcome = this.bytes.as_mut().poll_write(cx, buf);
        this.judge(cx, outcome)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = this.bytes.as_mut().poll_flush(cx);
        this.judge(cx, outcome)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = this.bytes.as_mut().poll_shutdown(cx);
        this.judge(cx, outcome)
    }
}
