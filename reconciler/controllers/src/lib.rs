//! The controllers and the scheduler: each a pure function from observed objects to changes, over the Kubernetes API
//! alone, so that each also runs against another API server.
