//! The steps of the demo, and the same by hand.

use super::*;

#[test]
fn three_seconds_of_it() {
    let mut demo = Demo::start(&["--seconds", "3"]);
    demo.read_welcome();
    let (address, config) = (demo.address, demo.file("tidegate.yaml").display().to_string());
    let stdout = demo.finish_well();
    assert!(address.ip().is_loopback());
    assert!(stdout.contains(&format!("curl http://{address}/")), "{stdout}");
    assert!(stdout.contains(&format!("bind: {address}")), "{stdout}");
    assert!(stdout.contains(&format!("The configuration that it runs with, {config}:")), "{stdout}");
    assert!(stdout.contains("80 requests a second") && stdout.contains("ends after 3 s"), "{stdout}");

    let live: Vec<Vec<&str>> =
        stdout.lines().filter(|line| is_live(line)).map(|line| line.split_whitespace().collect()).collect();
    assert!((2..=3).contains(&live.len()), "a line a second: {stdout}");
    for line in &live {
        assert!(line.len() == 8 && line[3] == "0", "failed: {line:?}");
    }

    let seen = clients(&stdout);
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), ["all are in service", "total"]);
    let total = &seen["total"];
    assert!(total.requests >= 20 && total.requests == total.connections && total.failed == 0, "{total:?}");
    // The load is light: no more than a request in 50 ms of each of four clients, and those at the beginning.
    assert!(total.requests <= 80 * 3 + 8, "{total:?}");
    let share = |of: u64| total.requests / of;
    for (answers, share) in total.answers.into_iter().zip([share(4), share(4), share(2)]) {
        assert!(answers.abs_diff(share) <= 3, "not by weight: {total:?}");
    }
    assert!(stdout.contains(&format!("All {} requests were answered as expected.", total.requests)), "{stdout}");
    let missed = STEPS[1..].join("; ");
    assert!(stdout.contains(&format!("Not reached before the end: {missed}.")), "{stdout}");

    let counted = counted(&stdout);
    assert_eq!(counted["backend"].join(" "), "connections bytes in bytes out refused broken p50 p99");
    // Bytes have a unit, p50 and p99 too.
    let connections = |name: &str| counted[name][0].parse::<u64>().unwrap();
    assert_eq!(connections("total"), total.connections, "{stdout}");
    for name in ["quick", "slow", "heavy", "total"] {
        let row = &counted[name];
        assert!(row[1] != "0" && row[3] != "0", "bytes: {row:?}");
        assert_eq!(row[5..7], ["0", "0"], "refused, broken: {row:?}");
        let (p50, p99) = (row[7].parse::<f64>().unwrap(), row[9].parse::<f64>().unwrap());
        assert!(0.0 < p50 && p50 <= p99, "{row:?}");
    }
    assert!(counted["slow"][7].parse::<f64>().unwrap() >= 20.0, "it answers after 20 ms:\n{stdout}");
}

/// Once the demo's own steps are over.
fn every_command_that_it_proposes_works(demo: &mut Demo, commands: &[String]) {
    assert_eq!(commands.len(), 16, "{commands:#?}");
    let mut next = commands.iter().map(|command| {
        let command = command.replacen("curl ", "curl --fail --show-error ", 1);
        // It wants a terminal.
        if command.contains(" top ") { command + " --once" } else { command }
    });
    let mut run = || sh(&next.next().unwrap());

    assert!(KNOWN.contains(&run().trim_end()));
    let twenty = run();
    let counts = twenty.lines().map(|line| line.trim().split_once(' ').unwrap());
    let counts: BTreeMap<&str, u32> = counts.map(|(count, greeting)| (greeting, count.parse().unwrap())).collect();
    assert_eq!(counts.values().sum::<u32>(), 20);
    assert!(counts.keys().all(|greeting| KNOWN.contains(greeting)), "{counts:?}");
    let answers = run();
    let answers: Vec<&str> = answers.lines().collect();
    assert!(answers.len() == 3 && answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    let url = format!("http://{}/", demo.address);
    let connects = sh(&format!("curl -s -o /dev/null -o /dev/null -w '%{{num_connects}} ' {url} {url}"));
    assert_eq!(connects, "1 0 ", "the second request is on the first one's connection");

    let quick = |demo: &Demo| backend(&demo.stats(), "quick").clone();
    assert_eq!(run(), "quick refuses connections\n");
    eventually(DEADLINE, "its checks fail", || quick(demo).reason.is_some_and(|why| why.contains("refused")));
    assert_eq!(run(), "quick resets connections\n");
    eventually(DEADLINE, "it breaks connections", || {
        quick(demo).checks.unwrap().last.unwrap().reason.is_some_and(|why| why.contains("reset"))
    });
    assert_eq!(run(), "quick answers\n");
    eventually(DEADLINE, "it is up again", || quick(demo).up);

    let state = |demo: &Demo, name: &str| demo.resource(&format!("/api/pools/demo/backends/{name}"));
    let mut changes = Vec::new();
    for round in ["curl", "tidegate"] {
        let printed = [run(), run(), run()];
        let said = ["ready -> drain", "drain -> ready", if round == "curl" { "-> 4" } else { "" }];
        for (printed, said) in printed.iter().zip(said) {
            assert!(printed.contains(said), "{round}: {printed}");
        }
        assert_eq!(state(demo, "slow")["weight"], 4);
        let path = demo.file("tidegate.yaml");
        let text = fs::read_to_string(&path).unwrap();
        let weight = if round == "curl" { 7 } else { 8 };
        let now = if round == "curl" { "weight: 2" } else { "weight: 7" };
        assert!(text.contains(now), "{text}");
        fs::write(&path, text.replace(now, &format!("weight: {weight}"))).unwrap();
        changes.push(run());
        assert_eq!(state(demo, "heavy")["weight"], weight, "{changes:?}");
    }
    assert!(run().contains("heavy"), "top");
    assert!(run().contains("at listener demo"), "explain");
    // Of the user's changes it says whose they are.
    demo.read_until(|line| line.contains("heavy.weight: 7 -> 8") && line.contains("POST /api/reload by unix uid="));
}

/// Each step is in the output and in what the admin interface says, and the report is honest about it. In the time that is
/// left, a user does the same.
#[test]
fn every_step_is_seen_and_can_be_done_by_hand() {
    let mut demo = Demo::start(&["--seconds", "600"]);
    demo.read_welcome();
    let commands = demo.commands();
    for step in STEPS {
        demo.read_until(|line| line.ends_with(&format!("* == {step} ==")));
    }
    demo.read_until(|line| line.ends_with("* == the rest of the time =="));
    let stats = demo.stats();
    let mut transitions: Vec<(&str, bool)> =
        stats.transitions.iter().map(|change| (change.backend.as_str(), change.up)).collect();
    transitions.reverse();
    let expected = [("quick", false), ("quick", true), ("slow", false), ("slow", true)];
    assert!(transitions.ends_with(&expected), "{transitions:?}");
    let reasons: Vec<&str> = stats.transitions.iter().rev().filter_map(|change| change.reason.as_deref()).collect();
    assert!(reasons[0].contains("refused") && reasons[1].contains("reset"), "{reasons:?}");
    assert!(backend(&stats, "quick").connect_failures > 0, "connects were refused, and others tried");
    assert_eq!(backend(&stats, "quick").connect_failures, backend(&stats, "quick").retries);
    assert!(backend(&stats, "slow").failures > 0, "connections were reset");
    assert_eq!(backend(&stats, "quick").weight, 3);
    let pools = demo.resource("/api/pools");
    assert!(pools.to_string().contains("heavy"), "{pools}");
    // drain, ready, reload
    assert_eq!(stats.config.generation, 4);
    assert!(fs::read_to_string(demo.file("tidegate.yaml")).unwrap().contains("weight: 3"));
    every_command_that_it_proposes_works(&mut demo, &commands);
    demo.read_live_line();
    demo.signal(Signal::INT);
    let stdout = demo.finish_well();

    let mut rest = stdout.as_str();
    for line in [
        "* quick is down: ",
        "* quick is up: its health checks pass",
        "* slow is down: ",
        "* slow is up: its health checks pass",
        "* changed: pools.demo.backends.heavy.state: ready -> drain",
        "* changed: pools.demo.backends.heavy.state: drain -> ready",
        "* changed: pools.demo.backends.quick.weight: 1 -> 3",
    ] {
        let at = rest.find(line).unwrap_or_else(|| panic!("no {line:?} in its turn:\n{stdout}"));
        rest = &rest[at..];
    }
    let seen = clients(&stdout);
    for step in
        ["all are in service", "quick is back", "slow answers again", "heavy is drained", "heavy is ready again"]
    {
        assert_eq!(seen[step].failed, 0, "{step}: {seen:#?}");
    }
    for (step, quick, slow, heavy) in [
        ("quick goes away", false, true, true),
        ("quick is back", true, true, true),
        ("slow resets connections", true, false, true),
        ("heavy is drained", true, true, false),
        ("a reload: quick has weight 3", true, true, true),
    ] {
        let Seen { answers, requests, .. } = &seen[step];
        for (answers, is_served) in answers.iter().zip([quick, slow, heavy]) {
            // Those that were under way when the step began.
            assert_eq!(*answers > requests / 16, is_served, "{step}: {seen:#?}");
        }
    }
    let Seen { answers: [quick, slow, heavy], .. } = seen["a reload: quick has weight 3"];
    assert!(quick > heavy && heavy > slow, "{seen:#?}");
    let resets = &seen["slow resets connections"];
    assert!(resets.failed > 0 && resets.pause >= 50, "it says so: {resets:?}");
    assert!(stdout.contains("First failure while \"slow resets connections\": "), "{stdout}");
    for step in STEPS {
        let is_noticed = ["quick goes away", "quick is back", "slow resets connections", "slow answers again"];
        assert_eq!(seen[step].noticed.is_some(), is_noticed.contains(&step), "{step}: {seen:#?}");
    }
    let total = &seen["total"];
    let of_steps = || seen.iter().filter(|(name, _)| **name != "total").map(|(_, seen)| seen);
    assert_eq!(total.requests, of_steps().map(|seen| seen.requests).sum::<u64>());
    assert_eq!(total.failed, of_steps().map(|seen| seen.failed).sum::<u64>());
    assert_ne!(counted(&stdout)["slow"][6], "0", "broken: {stdout}");
    assert!(!stdout.contains("Not reached"), "{stdout}");
}

/// What the user makes impossible is said, and the demo goes on.
#[test]
fn a_step_that_the_user_has_made_impossible_is_said() {
    let mut demo = Demo::start(&["--seconds", "600"]);
    demo.read_welcome();
    let removed = demo.change("DELETE", "/api/pools/demo/backends/heavy", "");
    assert!(removed.status < 300, "{}", removed.text());
    demo.read_until(|line| line.ends_with("== heavy is drained =="));
    demo.read_until(|line| line.contains("this did not work: ") && line.contains("heavy"));
    demo.signal(Signal::INT);
    let stdout = demo.finish_well();
    let counted = counted(&stdout);
    assert!(!counted.contains_key("heavy") && counted.contains_key("quick"), "{stdout}");
}
