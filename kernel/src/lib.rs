//! The one door to Linux networking.
