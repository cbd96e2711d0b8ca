//! Local addresses to connect from.

use super::*;

#[test]
fn sources_in_turn_within_a_family() {
    let mut config = pool(backends(&[1]));
    config.source = ["10.0.0.1", "::1", "10.0.0.2"].map(|a| a.parse().unwrap()).to_vec();
    let pool = build(&config);
    let v4 = Address::Tcp(([127, 0, 0, 1], 80).into());
    let v6 = Address::Tcp("[::1]:80".parse().unwrap());
    let next = |remote| pool.source(&config, remote).unwrap().to_string();
    assert_eq!([next(&v4), next(&v6), next(&v4), next(&v4)], ["10.0.0.1", "::1", "10.0.0.2", "10.0.0.1"]);
    assert_eq!(pool.source(&config, &Address::Unix(Arc::default())), None);
    let all = |remote| pool.sources(&config, remote).map(|source| source.to_string()).collect::<Vec<_>>();
    assert_eq!([all(&v4), all(&v4)], [["10.0.0.2", "10.0.0.1"], ["10.0.0.1", "10.0.0.2"]], "each once");
    assert_eq!((all(&v6), all(&Address::Unix(Arc::default()))), (vec!["::1".to_owned()], Vec::new()));
}
