//! Sourced, dated facts about hardware, models, quantisations, prices and electricity, and their loader.
