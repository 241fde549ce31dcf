-- The networks that each account had a session from: an IPv4 address, an IPv6 /64, or `local`. A flood of failed logins does not
-- block an account for its own networks.
--
-- There is no foreign key: its lock on the user would be taken while the session is locked, and ending all sessions of a user locks
-- them in the other order.
CREATE TABLE session_networks (
    user_id      text COLLATE "C" NOT NULL,
    network      text NOT NULL,
    -- To the day. Rows are deleted 30 days later, and with the account.
    last_used_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT session_networks_pkey PRIMARY KEY (user_id, network)
);
