//! Pods on a real cluster, worked with by kubectl: how they end, wait and come again, and what they find inside.

#[path = "up_pods/images.rs"]
mod images;
#[path = "up_pods/inside.rs"]
mod inside;
#[path = "up_pods/lives.rs"]
mod lives;
#[path = "up_pods/pods.rs"]
mod pods;
