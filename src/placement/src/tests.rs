use super::*;

fn cluster(name: &str, cpu: i64, used: i64) -> ClusterView {
    ClusterView {
        name: name.to_owned(),
        connected: true,
        healthy: true,
        reconciling: false,
        runtime: Runtime::Simulated,
        allocatable: Resources { cpu_milli: cpu, memory_bytes: 1000, pods: 10, ..Resources::default() },
        used: Resources { cpu_milli: used, ..Resources::default() },
        attempts_free: 10,
        enforces_exclusive: true,
        labels: [("region".to_owned(), name[..1].to_owned())].into(),
        ..ClusterView::default()
    }
}

fn request(cpu: i64) -> Request {
    Request { resources: Resources { cpu_milli: cpu, pods: 1, ..Resources::default() }, ..Request::default() }
}

#[test]
fn the_least_loaded_takes_it_and_ties_go_by_name() {
    let clusters = [cluster("b", 1000, 500), cluster("c", 1000, 100), cluster("a", 1000, 100)];
    assert_eq!(place(&request(100), &clusters), Ok(2));
}

#[test]
fn every_cluster_has_its_reason() {
    let mut clusters =
        [cluster("a", 100, 100), cluster("b", 1000, 0), cluster("c", 1000, 0), cluster("d", 1000, 0)];
    clusters[1].connected = false;
    clusters[2].runtime = Runtime::Process;
    let wanted = Request {
        runtime: Runtime::Simulated,
        selector: [("cluster.argosy.dev/region".to_owned(), "a".to_owned())].into(),
        ..request(100)
    };
    let reasons = place(&wanted, &clusters).unwrap_err();
    assert_eq!(
        reasons,
        [
            ("a".to_owned(), Reason::Insufficient("cpu".to_owned())),
            ("b".to_owned(), Reason::NotConnected),
            ("c".to_owned(), Reason::Runtime),
            ("d".to_owned(), Reason::Selector("cluster.argosy.dev/region".to_owned())),
        ]
    );
    assert!(
        explain(&reasons).starts_with("no cluster can take it: b: not connected"),
        "{}",
        explain(&reasons)
    );
}

#[test]
fn exclusion_yields_only_when_nothing_else_is_left() {
    let mut clusters = [cluster("a", 1000, 0), cluster("b", 1000, 900)];
    let wanted = Request { excluded: vec!["a".to_owned()], ..request(100) };
    assert_eq!(place(&wanted, &clusters), Ok(1));
    clusters[1].used.cpu_milli = 950;
    assert_eq!(place(&wanted, &clusters), Ok(0));
    clusters[0].connected = false;
    assert!(place(&wanted, &clusters).is_err());
}

#[test]
fn what_a_cluster_lacks_is_its_reason() {
    let mut clusters = [cluster("a", 1000, 0), cluster("b", 1000, 900)];
    clusters[0].lacking = Some(Reason::Lacks("Secret n/s".to_owned()));
    assert_eq!(place(&request(1), &clusters), Ok(1));
    clusters[1].lacking = Some(Reason::Unchecked("Secret n/s".to_owned()));
    let reasons = explain(&place(&request(1), &clusters).unwrap_err());
    assert!(
        reasons.contains("a: has no Secret n/s; b: has not said yet whether it has Secret n/s"),
        "{reasons}"
    );
}

#[test]
fn names_and_pins_bind() {
    let clusters = [cluster("a", 1000, 0), cluster("b", 1000, 0)];
    let named = Request { selector: [(SELECTOR_NAME.to_owned(), "b".to_owned())].into(), ..request(1) };
    assert_eq!(place(&named, &clusters), Ok(1));
    let pinned = Request { pinned: Some("b".to_owned()), ..request(1) };
    assert_eq!(place(&pinned, &clusters), Ok(1));
    let gone = Request { pinned: Some("z".to_owned()), ..request(1) };
    assert_eq!(place(&gone, &clusters).unwrap_err()[0].1, Reason::Pinned("z".to_owned()));
}

#[test]
fn extended_resources_and_attempts_are_bounds() {
    let mut clusters = [cluster("a", 1000, 0)];
    let mut wanted = request(1);
    wanted.resources.extended.insert("gpu".to_owned(), 1);
    assert_eq!(place(&wanted, &clusters).unwrap_err()[0].1, Reason::Insufficient("gpu".to_owned()));
    clusters[0].allocatable.extended.insert("gpu".to_owned(), 1);
    assert_eq!(place(&wanted, &clusters), Ok(0));
    clusters[0].attempts_free = 0;
    assert!(place(&wanted, &clusters).is_err());
}

#[test]
fn no_cluster_is_explained() {
    assert!(explain(&place(&request(1), &[]).unwrap_err()).contains("no cluster is registered"));
}

#[test]
fn exclusive_steps_need_an_agent_that_can_end_them() {
    let mut clusters = [cluster("a", 1000, 0), cluster("b", 1000, 500)];
    clusters[0].enforces_exclusive = false;
    assert_eq!(place(&request(100), &clusters), Ok(0));
    assert_eq!(place(&Request { exclusive: true, ..request(100) }, &clusters), Ok(1));
    clusters[1].connected = false;
    let reasons = place(&Request { exclusive: true, ..request(100) }, &clusters).unwrap_err();
    assert_eq!(reasons[0], ("a".to_owned(), Reason::NotExclusive));
}

#[test]
fn a_step_goes_where_its_data_is_unless_that_is_much_fuller() {
    let cluster = |name: &str, used: i64| ClusterView {
        name: name.to_owned(),
        connected: true,
        healthy: true,
        allocatable: Resources { pods: 100, ..Resources::default() },
        used: Resources { pods: used, ..Resources::default() },
        attempts_free: 100,
        ..ClusterView::default()
    };
    let request = Request {
        resources: Resources { pods: 1, ..Resources::default() },
        near: Some("east".to_owned()),
        ..Request::default()
    };
    assert_eq!(place(&request, &[cluster("west", 0), cluster("east", 20)]), Ok(1));
    assert_eq!(place(&request, &[cluster("west", 0), cluster("east", 40)]), Ok(0));
}
