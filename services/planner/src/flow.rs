//! Transport at least cost: from sources with people to sinks with places, as many people as possible first.
//!
//! Successive shortest paths with potentials. Prices of sinks only rise, are nought while a sink has room, and a source's
//! arcs are in the order of their cost: so a search looks at no arc that could not beat the best end it has found, and
//! stays near where it began.
//!
//! Invariant: after each path every arc's reduced cost `cost + price(sink) - value(source)` is at least nought, and
//! exactly nought where something flows; that is what makes the end an optimum.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A way from a source to a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arc {
    /// The sink's number.
    pub sink: u32,
    /// What it costs each who goes; at least nought.
    pub cost: i64,
}

/// What is to be transported.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// People of each source.
    pub people: Vec<u32>,
    /// Places of each sink.
    pub places: Vec<u32>,
    /// The ways from each source, each sink at most once.
    pub arcs: Vec<Vec<Arc>>,
}

/// A transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Of each source: the sinks its people go to and how many, by sink.
    pub to: Vec<Vec<(u32, u32)>>,
    /// Of each source: how many go nowhere.
    pub left: Vec<u32>,
}

/// The cheapest of all transports that leave as few people as possible.
#[must_use]
pub fn solve(mut network: Network) -> Flow {
    for arcs in &mut network.arcs {
        arcs.sort_by_key(|arc| (arc.cost, arc.sink));
    }
    let mut solver = Solver::new(&network);
    for source in 0..network.people.len() {
        solver.ship(source);
    }
    solver.flow()
}

/// Where a search ends.
#[derive(Clone, Copy)]
enum End {
    /// A sink with room.
    Sink(usize),
    /// Somebody of this source goes nowhere.
    Nowhere(usize),
}

struct Solver<'a> {
    network: &'a Network,
    /// More than any detour that could spare somebody going nowhere.
    nowhere: i64,
    room: Vec<u32>,
    price: Vec<i64>,
    value: Vec<i64>,
    /// What flows into each sink: sources and people, by source.
    into: Vec<Vec<(u32, u32)>>,
    left: Vec<u32>,
    search: Search,
}

/// What one search knows; `stamp` says which entries are of this search.
#[derive(Default)]
struct Search {
    stamp: u32,
    sinks: Vec<Reached>,
    sources: Vec<Reached>,
    heap: BinaryHeap<Reverse<(i64, usize)>>,
    /// Sources and sinks whose distance is final.
    tree: Vec<usize>,
    settled: Vec<usize>,
    best: i64,
    end: Option<End>,
}

#[derive(Clone, Copy, Default)]
struct Reached {
    stamp: u32,
    distance: i64,
    /// The source a sink was reached from, the sink a source was reached from.
    from: usize,
}

impl<'a> Solver<'a> {
    fn new(network: &'a Network) -> Self {
        let (sources, sinks) = (network.people.len(), network.places.len());
        let dearest = network.arcs.iter().flatten().map(|arc| arc.cost).max();
        let nodes = i64::try_from(sources + sinks + 1).unwrap_or(i64::MAX);
        Self {
            network,
            nowhere: nodes.saturating_mul(dearest.unwrap_or(0) + 1),
            room: network.places.clone(),
            price: vec![0; sinks],
            value: vec![0; sources],
            into: vec![Vec::new(); sinks],
            left: vec![0; sources],
            search: Search {
                sinks: vec![Reached::default(); sinks],
                sources: vec![Reached::default(); sources],
                ..Search::default()
            },
        }
    }

    /// Sends all people of a source on their way; others may have to make room.
    fn ship(&mut self, source: usize) {
        let mut people = self.network.people[source];
        while people > 0 {
            let end = self.find(source);
            people -= self.push(source, end, people);
        }
    }

    /// The cheapest way from a source to where there is room, or to nowhere.
    fn find(&mut self, source: usize) -> End {
        let search = &mut self.search;
        search.stamp += 1;
        search.heap.clear();
        search.tree.clear();
        search.settled.clear();
        search.best = i64::MAX;
        search.end = None;
        self.reach(source, 0, usize::MAX);
        while let Some(Reverse((distance, sink))) = self.search.heap.pop() {
            if distance >= self.search.best {
                break;
            }
            if distance > self.search.sinks[sink].distance {
                continue;
            }
            self.search.settled.push(sink);
            for at in 0..self.into[sink].len() {
                let (of, _) = self.into[sink][at];
                let of = of as usize;
                if self.search.sources[of].stamp != self.search.stamp {
                    self.reach(of, distance, sink);
                }
            }
        }
        self.raise();
        // Nowhere is always reached.
        self.search.end.unwrap_or(End::Nowhere(source))
    }

    /// A source is reached: on to its sinks.
    fn reach(&mut self, source: usize, distance: i64, from: usize) {
        let search = &mut self.search;
        search.sources[source] = Reached {
            stamp: search.stamp,
            distance,
            from,
        };
        search.tree.push(source);
        let start = distance - self.value[source];
        if start + self.nowhere < search.best {
            search.best = start + self.nowhere;
            search.end = Some(End::Nowhere(source));
        }
        for arc in &self.network.arcs[source] {
            if start + arc.cost >= search.best {
                break;
            }
            let sink = arc.sink as usize;
            let distance = start + arc.cost + self.price[sink];
            let known = &mut search.sinks[sink];
            let nearer = known.stamp != search.stamp || distance < known.distance;
            if distance >= search.best || !nearer {
                continue;
            }
            *known = Reached {
                stamp: search.stamp,
                distance,
                from: source,
            };
            if self.room[sink] > 0 {
                search.best = distance;
                search.end = Some(End::Sink(sink));
            } else {
                search.heap.push(Reverse((distance, sink)));
            }
        }
    }

    /// Moves the potentials, so that the way found costs nothing more and no arc less than nothing.
    fn raise(&mut self) {
        let search = &self.search;
        for source in &search.tree {
            self.value[*source] += search.best - search.sources[*source].distance;
        }
        for sink in &search.settled {
            self.price[*sink] += search.best - search.sinks[*sink].distance;
        }
    }

    /// Sends as many as the way takes, at most `people`.
    fn push(&mut self, source: usize, end: End, people: u32) -> u32 {
        let mut steps = Vec::new();
        let (mut at, mut most) = match end {
            End::Sink(sink) => {
                steps.push((self.search.sinks[sink].from, sink, None));
                (self.search.sinks[sink].from, people.min(self.room[sink]))
            }
            End::Nowhere(of) => (of, people),
        };
        let last = at;
        while at != source {
            let sink = self.search.sources[at].from;
            most = most.min(self.flowing(at, sink));
            let before = self.search.sinks[sink].from;
            steps.push((before, sink, Some(at)));
            at = before;
        }
        for (from, sink, instead_of) in steps {
            self.add(from, sink, most);
            if let Some(of) = instead_of {
                self.take(of, sink, most);
            } else {
                self.room[sink] -= most;
            }
        }
        if let End::Nowhere(_) = end {
            self.left[last] += most;
        }
        most
    }

    fn flowing(&self, source: usize, sink: usize) -> u32 {
        let found = self.into[sink].binary_search_by_key(&source, |(of, _)| *of as usize);
        found.map_or(0, |at| self.into[sink][at].1)
    }

    fn add(&mut self, source: usize, sink: usize, people: u32) {
        let into = &mut self.into[sink];
        match into.binary_search_by_key(&source, |(of, _)| *of as usize) {
            Ok(at) => into[at].1 += people,
            Err(at) => into.insert(at, (u32::try_from(source).unwrap_or(u32::MAX), people)),
        }
    }

    fn take(&mut self, source: usize, sink: usize, people: u32) {
        let into = &mut self.into[sink];
        if let Ok(at) = into.binary_search_by_key(&source, |(of, _)| *of as usize) {
            into[at].1 -= people;
            if into[at].1 == 0 {
                into.remove(at);
            }
        }
    }

    fn flow(self) -> Flow {
        let mut to = vec![Vec::new(); self.network.people.len()];
        for (sink, into) in self.into.into_iter().enumerate() {
            let sink = u32::try_from(sink).unwrap_or(u32::MAX);
            for (source, people) in into {
                to[source as usize].push((sink, people));
            }
        }
        Flow {
            to,
            left: self.left,
        }
    }
}
