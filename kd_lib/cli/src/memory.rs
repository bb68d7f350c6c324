//! The allocator of this process: mimalloc, for libtorch's tensors as well as for Rust's values. A
//! teacher's update asks for some two thousand blocks of up to megabytes; finding them took the C
//! library a tenth of the update's time.

use libmimalloc_sys::{mi_option_set, mi_option_t};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay`, for which the bindings have no name.
const PURGE_DELAY: mi_option_t = 15;

/// Keeps what is freed: the next update wants it again, and asking the system for it costs as much
/// as was won.
pub fn keep_freed_memory() {
    // SAFETY: a plain setting of the allocator that is linked in; it may be made at any time.
    unsafe { mi_option_set(PURGE_DELAY, -1) }
}
