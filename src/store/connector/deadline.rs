//! A deadline that the waiting thread shares with the socket to PostgreSQL.
//!
//! Nothing else ends a wait for a server that does not answer: the server itself keeps `statement_timeout`; a peer that only
//! acknowledges (a paused server, a proxy that has lost its server) satisfies TCP keepalive and `TCP_USER_TIMEOUT`; and `postgres`
//! has no timeout.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until, timeout_at};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

/// The time by which the server must have answered; clones share it with the connection's socket.
///
/// After a wait that has passed it the connection is unusable: the statement fails with an error whose source is an [`io::Error`] of
/// kind [`io::ErrorKind::TimedOut`], [`postgres::Client::is_closed`] is true, and all further statements fail at once. It is then
/// unknown whether the server has run the statement.
///
/// It is read when a wait begins, so setting it from another thread does not shorten a wait. An answer that has arrived is delivered,
/// however late it is.
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

    /// Sets the time at which waits end with an error. If it is in the past, every wait fails at once.
    pub fn set(&self, at: Instant) {
        let after = at.saturating_duration_since(self.0.origin).as_nanos();
        let after = u64::try_from(after).unwrap_or(u64::MAX).max(1);
        // Relaxed: the thread that has set it reads it, while it waits, and nothing else depends on it.
        self.0.at.store(after, Ordering::Relaxed);
    }

    /// Removes the limit.
    pub fn clear(&self) {
        self.0.at.store(0, Ordering::Relaxed);
    }

    /// Whether the end of the connection was read.
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
/// Without a wait the deadline costs nothing. A wait costs one poll of a timer. The timer stays armed between
/// waits. When it fires and the deadline is later, it is set again. So it is set once per length of a deadline, not for every statement.
pub(super) struct DeadlineStream {
    bytes: Pin<Box<dyn ByteStream>>,
    /// The channel binding of a TLS connection (RFC 5929).
    end_point: Option<Vec<u8>>,
    deadline: Deadline,
    timer: Option<Pin<Box<Sleep>>>,
    /// Stays set, because a late answer would be read as the answer to the next statement.
    timed_out: bool,
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
        }
    }

    /// Delays the end of the stream by one poll, so that the running statement gets the message before it.
    ///
    /// `tokio-postgres` queues PostgreSQL's last message for the running statement, reads the end of the stream, and fails the
    /// statement with "connection closed" before that has read the message. Then a statement that PostgreSQL did not run (57P01) looks
    /// like one that it may have run.
    fn hold_end_back<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.deadline.0.ended.swap(true, Ordering::Relaxed) {
            return outcome;
        }
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
