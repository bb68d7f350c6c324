//! Dynamic loss scaling for fp16 (Micikevicius et al. 2018, section 3.2). A factor on the loss
//! lifts small gradients into fp16's range; the loop divides it out in fp32 before the update. This
//! module holds the factor and its history, as PyTorch's `GradScaler` does; the loop applies it.

use crate::precision::Precision;
use serde::{Deserialize, Serialize};

/// The initial factor.
const INITIAL_SCALE: f64 = 65536.0;
/// Consecutive updates with finite gradients after which the factor doubles.
const GROWTH_INTERVAL: u32 = 2000;

/// The factor on the loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GradScaler {
    /// The factor; always 1 if the precision needs none. Below 1 the overflow comes from the model,
    /// so training stops.
    pub scale: f64,
    /// Whether the factor changes.
    pub dynamic: bool,
    /// Updates that were skipped because a gradient overflowed.
    pub skipped: usize,
    growth_tracker: u32,
}

impl GradScaler {
    /// The scaler that a precision begins with.
    ///
    /// ```
    /// use kd_lib::precision::Precision;
    /// use kd_lib::training::GradScaler;
    /// let mut scaler = GradScaler::new(Precision::Fp16);
    /// scaler.update(false); // an overflow: the update is skipped and the factor halved
    /// assert_eq!((scaler.scale, scaler.skipped), (32768.0, 1));
    /// ```
    pub fn new(precision: Precision) -> GradScaler {
        let dynamic = precision == Precision::Fp16;
        let scale = if dynamic { INITIAL_SCALE } else { 1.0 };
        GradScaler {
            scale,
            dynamic,
            skipped: 0,
            growth_tracker: 0,
        }
    }

    /// Adapts the factor to whether an update's gradients were finite: halves it at once, doubles
    /// it slowly.
    pub fn update(&mut self, gradients_finite: bool) {
        if !self.dynamic {
            return;
        }
        if !gradients_finite {
            self.scale /= 2.0;
            self.skipped += 1;
            self.growth_tracker = 0;
            return;
        }
        self.growth_tracker += 1;
        if self.growth_tracker == GROWTH_INTERVAL {
            self.scale *= 2.0;
            self.growth_tracker = 0;
        }
    }
}

impl Default for GradScaler {
    fn default() -> GradScaler {
        GradScaler::new(Precision::Fp32)
    }
}
