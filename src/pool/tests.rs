//! Leases, health and slow start, as a session and the control thread see them.
