//! A drop-in for `flanneld`.
