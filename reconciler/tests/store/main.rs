//! The stores against one specification: the same tests on the embedded store and on a real etcd.

mod child;
mod conformance;
mod crash;
mod embedded;
mod etcd;
mod fixture;
mod interleaving;
mod process;

/// One test for each store and each function of [`conformance`].
macro_rules! conformance {
    ($($name:ident),* $(,)?) => {
        mod embedded_conforms {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::conformance::$name(&mut super::fixture::Embedded::start()).await;
            })*
        }

        mod etcd_conforms {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::conformance::$name(&mut super::fixture::Etcd::start().await).await;
            })*
        }
    };
}

conformance!(
    writes_compare_and_swap,
    deletes_compare_and_swap,
    a_list_is_a_prefix_in_order,
    pages_show_one_revision,
    a_list_of_the_past_shows_the_past,
    a_watch_starts_anywhere,
    a_watch_is_bounded_by_its_prefix,
    a_watch_waits_for_the_future,
    compacted_history_is_refused,
    one_of_many_writers_wins,
    every_watcher_sees_the_same_history,
    a_slow_watcher_misses_nothing,
    all_is_there_after_a_restart,
    a_closed_store_says_so,
);
