//! The bandwidth of a connection. How exact it is, a property test of the pacer says by made-up instants; here, bytes go by.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::backend::Backend;
use crate::support::client::connect;
use crate::support::data::{receive, send};
use crate::support::tidegate::{Tidegate, forward};

/// Large enough that the relay splices.
const BYTES: u64 = 6 << 20;

#[test]
fn both_directions_keep_to_it_and_no_byte_is_lost() {
    let echo = Backend::echo();
    let tidegate = Tidegate::start(&forward(echo.place(), "limits: { bandwidth: 8MiB/s }", ""));
    let began = Instant::now();
    let mut client = connect(&tidegate.at("in"));
    let mut writer = client.try_clone().unwrap();
    let sender = thread::spawn(move || {
        let sum = send(&mut writer, 7, BYTES).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
        sum
    });
    let received = receive(&mut client).unwrap();
    assert_eq!(sender.join().unwrap(), received);
    // Less a burst. No machine is too fast for this; a slow one only takes longer.
    let least = Duration::from_secs_f64(BYTES as f64 / f64::from(8 << 20)) - Duration::from_millis(25);
    assert!(began.elapsed() >= least, "{:?}", began.elapsed());
    assert_eq!(tidegate.only_access().bytes(), (BYTES, BYTES));
}
