//! The doors: Unix sockets, sockets handed over, tiny_http's own, TLS; and who it is that comes in.
