//! The clinics around a clinic, nearest first.
//!
//! Distances are those on a plane that touches the earth in the middle of all clinics: exact to a few per cent over a
//! country, to a few metres over a region.

use crate::Clinic;

/// Metres from one degree of latitude to the next.
const DEGREE: f64 = 111_195.0;
/// Clinics in a cell, about.
const IN_A_CELL: usize = 4;
/// A cell is at least so wide, in metres.
const CELL_MIN: f64 = 100.0;

pub(crate) struct Grid {
    points: Vec<(f64, f64)>,
    west: f64,
    south: f64,
    cell: f64,
    width: usize,
    height: usize,
    /// Clinics by cell, row after row.
    cells: Vec<Vec<u32>>,
}

impl Grid {
    pub(crate) fn new(clinics: &[Clinic]) -> Self {
        let points = project(clinics);
        let bound = |of: fn(&(f64, f64)) -> f64, pick: fn(f64, f64) -> f64| {
            points.iter().map(of).reduce(pick).unwrap_or(0.0)
        };
        let (west, south) = (bound(|p| p.0, f64::min), bound(|p| p.1, f64::min));
        let (wide, high) = (
            bound(|p| p.0, f64::max) - west,
            bound(|p| p.1, f64::max) - south,
        );
        let wanted = (points.len() / IN_A_CELL).max(1);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        // On a line the area says nothing.
        let cell = (wide * high / wanted as f64)
            .sqrt()
            .max(wide.max(high) / wanted as f64)
            .max(CELL_MIN);
        let mut grid = Self {
            points,
            west,
            south,
            cell,
            width: steps(wide, cell) + 1,
            height: steps(high, cell) + 1,
            cells: Vec::new(),
        };
        grid.cells = vec![Vec::new(); grid.width * grid.height];
        for at in 0..grid.points.len() {
            let (column, row) = grid.cell_of(at);
            let cell = row * grid.width + column;
            grid.cells[cell].push(u32::try_from(at).unwrap_or(u32::MAX));
        }
        grid
    }

    fn cell_of(&self, clinic: usize) -> (usize, usize) {
        let (x, y) = self.points[clinic];
        (
            steps(x - self.west, self.cell),
            steps(y - self.south, self.cell),
        )
    }

    /// Whole metres between two clinics.
    pub(crate) fn metres(&self, one: usize, other: usize) -> u32 {
        let ((x, y), (u, v)) = (self.points[one], self.points[other]);
        metres((x - u).hypot(y - v))
    }

    /// The nearest clinics that are wanted, at most `most`, with their distance; by distance, then number.
    pub(crate) fn nearest(
        &self,
        clinic: usize,
        most: usize,
        wanted: impl Fn(u32) -> bool,
    ) -> Vec<(u32, u32)> {
        let (column, row) = self.cell_of(clinic);
        let mut found: Vec<(u32, u32)> = Vec::new();
        for ring in 0..=self.width.max(self.height) {
            self.ring(column, row, ring, |other| {
                if wanted(other) {
                    found.push((self.metres(clinic, other as usize), other));
                }
            });
            if found.len() >= most {
                found.sort_unstable();
                found.truncate(most);
                // Whoever is further out than this ring is at least so far away.
                #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
                let beyond = metres(ring as f64 * self.cell);
                if found.last().is_some_and(|(far, _)| *far < beyond) {
                    break;
                }
            }
        }
        found.sort_unstable();
        found.truncate(most);
        found.into_iter().map(|(far, other)| (other, far)).collect()
    }

    fn ring(&self, column: usize, row: usize, ring: usize, mut each: impl FnMut(u32)) {
        let rows = row.saturating_sub(ring)..=(row + ring).min(self.height - 1);
        let mut visit = |at: usize, across: usize| {
            for clinic in &self.cells[at * self.width + across] {
                each(*clinic);
            }
        };
        for at in rows {
            if at.abs_diff(row) == ring {
                let columns = column.saturating_sub(ring)..=(column + ring).min(self.width - 1);
                columns.for_each(|across| visit(at, across));
            } else {
                let sides = [column.checked_sub(ring), column.checked_add(ring)];
                let inside = sides
                    .into_iter()
                    .flatten()
                    .filter(|side| *side < self.width);
                inside.for_each(|across| visit(at, across));
            }
        }
    }
}

fn project(clinics: &[Clinic]) -> Vec<(f64, f64)> {
    let south = clinics.iter().map(|c| c.latitude).reduce(f64::min);
    let north = clinics.iter().map(|c| c.latitude).reduce(f64::max);
    let middle = (south.unwrap_or(0.0) + north.unwrap_or(0.0)) / 2.0;
    let across = DEGREE * middle.to_radians().cos();
    let point = |c: &Clinic| (c.longitude * across, c.latitude * DEGREE);
    clinics.iter().map(point).collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from nought to a few thousand"
)]
fn steps(length: f64, cell: f64) -> usize {
    (length / cell) as usize
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the earth is 40,000 km around"
)]
fn metres(length: f64) -> u32 {
    length.round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_are_those_that_looking_at_everybody_finds() {
        let mut seed = 7u64;
        let mut draw = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            f64::from(u32::try_from(seed >> 33).expect("31 bits")) / f64::from(1u32 << 31)
        };
        for count in [1, 2, 9, 400] {
            let clinics: Vec<Clinic> = (0..count)
                .map(|_| Clinic {
                    latitude: 34.0 + draw() * 4.0,
                    longitude: 126.0 + draw() * draw() * 3.0,
                    district: 0,
                })
                .collect();
            let grid = Grid::new(&clinics);
            for clinic in 0..clinics.len() {
                let wanted = |other: u32| other % 3 != 1;
                let mut all: Vec<(u32, u32)> = (0..clinics.len())
                    .filter(|other| wanted(u32::try_from(*other).expect("few")))
                    .map(|other| {
                        (
                            grid.metres(clinic, other),
                            u32::try_from(other).expect("few"),
                        )
                    })
                    .collect();
                all.sort_unstable();
                let all: Vec<_> = all.into_iter().take(50).map(|(m, c)| (c, m)).collect();
                assert_eq!(grid.nearest(clinic, 50, wanted), all);
            }
        }
    }

    #[test]
    fn clinics_at_one_place_are_all_near() {
        let one = Clinic {
            latitude: 37.5,
            longitude: 127.0,
            district: 0,
        };
        let grid = Grid::new(&[one; 5]);
        let found = grid.nearest(3, 4, |other| other != 3);
        assert_eq!(found, [(0, 0), (1, 0), (2, 0), (4, 0)]);
    }
}
