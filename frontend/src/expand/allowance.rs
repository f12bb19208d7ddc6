//! How much text the variables of a file may become.
//!
//! Each line of `ARG B=$A$A` doubles a value, and each RUN carries the whole environment: a few kilobytes can ask for more
//! memory than there is. So all that is made of variables is counted, over all stages of a build, and ends in an error.
//! Every honest file stays far below: the kernel itself takes no more than 6 MiB of environment and arguments.

use std::cell::Cell;
use std::rc::Rc;

/// The most bytes that may be made.
const LIMIT_MEBIBYTES: usize = 256;

/// There is nothing left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("variables and inherited settings grow to more than {LIMIT_MEBIBYTES} MiB")]
pub(crate) struct Exhausted;

/// What may still be made. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Allowance(Rc<Cell<usize>>);

impl Default for Allowance {
    fn default() -> Self {
        Self(Rc::new(Cell::new(LIMIT_MEBIBYTES << 20)))
    }
}

impl Allowance {
    /// Takes from it. Once it could not give, it gives nothing more.
    pub(crate) fn spend(&self, bytes: usize) -> Result<(), Exhausted> {
        let left = self.0.get().saturating_sub(bytes);
        self.0.set(left);
        if left == 0 {
            return Err(Exhausted);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_is_spent_for_all() {
        let all = Allowance::default();
        let same = all.clone();
        assert_eq!(same.spend(LIMIT_MEBIBYTES << 19), Ok(()));
        assert_eq!(all.spend(LIMIT_MEBIBYTES << 19), Err(Exhausted));
        assert_eq!(same.spend(0), Err(Exhausted));
        assert_eq!(Allowance::default().spend(0), Ok(()));
    }
}
