//! What happens when backends fail or are full, from the file to the model.

use super::*;

#[test]
fn what_happens_when_backends_fail_arrives_as_written() {
    let p = pool(
        "outlier: { failures: 3, window: 10s, ejection: 5s, max_ejection: 1m, max_ejected: 34%, http_5xx: true }, \
         fail_open: 20%, persist: { by: client_ip, ttl: 1h, size: 7 }, queue: { size: 9, timeout: 250ms }",
    );
    let outlier = OutlierConfig {
        failures: NonZeroU32::new(3).unwrap(),
        window: Some(Duration::from_secs(10)),
        ejection: Duration::from_secs(5),
        max_ejection: Duration::from_secs(60),
        max_ejected: 34,
        http_5xx: true,
    };
    assert_eq!((p.outlier, p.fail_open), (Some(outlier), 20));
    let persist = PersistConfig { ttl: Duration::from_secs(3600), size: NonZeroU32::new(7).unwrap() };
    let queue = QueueConfig { size: 9, timeout: Duration::from_millis(250) };
    assert_eq!((p.persist, p.queue), (Some(Persist::ClientIp(persist)), queue));
    let p = pool("outlier: {}, persist: {}");
    let outlier = p.outlier.as_ref().expect("it is given");
    assert_eq!((outlier.failures.get(), outlier.window, outlier.max_ejected), (5, None, 50));
    assert_eq!((outlier.ejection, outlier.max_ejection), (Duration::from_secs(30), Duration::from_secs(300)));
    assert_eq!(p.persistence().expect("it is given").ttl, Duration::from_secs(1800));
}
