//! A deadline that the waiting thread shares with the socket to PostgreSQL.
//!
//! No lower layer ends a wait for a server that is silent: the server itself enforces `statement_timeout`, a peer that only
//! acknowledges (a paused server, a proxy without its server) satisfies TCP keepalive and `TCP_USER_TIMEOUT`, and `postgres` has
//! no timeout.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until};

/// The moment by which the server must have answered; clones share it with the connection's socket.
///
/// After a wait has exceeded it, the connection is unusable: the running statement fails with an error whose source is an
/// [`io::Error`] of kind [`io::ErrorKind::TimedOut`], [`postgres::Client::is_closed`] is true, and every later statement fails at
/// once. It is unknown whether the server executed the statement.
///
/// It is read when a wait begins, so setting it from another thread does not shorten a running wait. An answer that has already
/// arrived is delivered even after the deadline.
#[derive(Clone, Debug)]
pub struct Deadline(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    origin: Instant,
    /// Nanoseconds after `origin`; 0 is no deadline. 64 bits last for 584 years.
    at: AtomicU64,
    /// Set when the stream has ended.
    ended: AtomicBool,
}

impl Deadline {
    pub(super) fn new() -> Deadline {
        Deadline(Arc::new(Shared {
            origin: Instant::now(),
            at: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }))
    }

    /// Waits end with an error from this moment on. With a moment in the past, no wait begins.
    pub fn set(&self, at: Instant) {
        let after = at.saturating_duration_since(self.0.origin).as_nanos();
        let after = u64::try_from(after).unwrap_or(u64::MAX).max(1);
        // Relaxed: it is read by the thread that set it, while that thread waits; nothing else is published with it.
        self.0.at.store(after, Ordering::Relaxed);
    }

    /// Removes the deadline.
    pub fn clear(&self) {
        self.0.at.store(0, Ordering::Relaxed);
    }

    /// Whether the end of the connection has been read.
    pub fn has_ended(&self) -> bool {
        self.0.ended.load(Ordering::Relaxed)
    }

    fn get(&self) -> Option<Instant> {
        match self.0.at.load(Ordering::Relaxed) {
            0 => None,
            after => self.0.origin.checked_add(Duration::from_nanos(after)),
        }
    }
}

/// A byte stream on which no wait exceeds the deadline.
///
/// If data is available, the deadline costs nothing. A wait costs one poll of a timer that stays armed between waits. When the
/// timer fires, it is set again if the deadline has moved, so that it is set once per deadline length and not once per statement.
pub(super) struct DeadlineStream<S> {
    inner: S,
    deadline: Deadline,
    timer: Option<Pin<Box<Sleep>>>,
    /// This stays set, because a late answer would be read as the answer to the next statement.
    timed_out: bool,
    /// The end of the stream was read. The next read reports it.
    ending: bool,
}

impl<S> DeadlineStream<S> {
    pub(super) fn new(inner: S, deadline: Deadline) -> DeadlineStream<S> {
        DeadlineStream {
            inner,
            deadline,
            timer: None,
            timed_out: false,
            ending: false,
        }
    }

    /// Delays the end of the stream by one poll, so that the waiting statement gets the data before it.
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

    /// The result of polling the inner stream, with the deadline applied.
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

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the server did not answer in time")
}

impl<S: AsyncRead + Unpin> AsyncRead for DeadlineStream<S> {
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
        let outcome = Pin::new(&mut this.inner).poll_read(cx, buf);
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

impl<S: AsyncWrite + Unpin> AsyncWrite for DeadlineStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.timed_out {
            return Poll::Ready(Err(timed_out()));
        }
        let outcome = Pin::new(&mut this.inner).poll_write(cx, buf);
        this.judge(cx, outcome)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.inner).poll_flush(cx);
        this.judge(cx, outcome)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.inner).poll_shutdown(cx);
        this.judge(cx, outcome)
    }
}
