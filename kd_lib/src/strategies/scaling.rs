//! Dynamic loss scaling for fp16 (Micikevicius et al. 2018, section 3.2): gradients below fp16's range are
//! lifted into it by a factor on the loss, and taken back in fp32 before the update. Only the factor and its
//! history live here; the loop applies it.

use super::Precision;
use serde::{Deserialize, Serialize};

/// Where the factor begins.
const FIRST: f64 = 65536.0;
/// Sound updates in a row after which it doubles.
const PATIENCE: u32 = 2000;

/// The factor on the loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    /// The factor; 1 for ever where the precision needs none. Below 1 what overflows is the model, not the scale.
    pub scale: f64,
    /// Whether it moves.
    pub dynamic: bool,
    /// Updates that were left out because a gradient overflowed.
    pub skipped: usize,
    sound: u32,
}

impl LossScale {
    /// The scale that a precision begins with.
    ///
    /// ```
    /// use kd_lib::strategies::{LossScale, Precision};
    /// let mut scale = LossScale::of(Precision::Fp16);
    /// scale.settle(false); // an overflow: the update is left out and the factor halved
    /// assert_eq!((scale.scale, scale.skipped), (32768.0, 1));
    /// ```
    pub fn of(precision: Precision) -> LossScale {
        let dynamic = precision == Precision::Fp16;
        LossScale { scale: if dynamic { FIRST } else { 1.0 }, dynamic, skipped: 0, sound: 0 }
    }

    /// Takes note of an update whose gradients were finite or not: backs off at once, grows slowly.
    pub fn settle(&mut self, finite: bool) {
        if !self.dynamic {
            return;
        }
        if !finite {
            (self.scale, self.skipped, self.sound) = (self.scale / 2.0, self.skipped + 1, 0);
            return;
        }
        self.sound += 1;
        if self.sound == PATIENCE {
            (self.scale, self.sound) = (self.scale * 2.0, 0);
        }
    }
}

impl Default for LossScale {
    fn default() -> LossScale {
        LossScale::of(Precision::Fp32)
    }
}
