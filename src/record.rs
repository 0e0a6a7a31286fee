//! One row of results, and the files it is kept in.
