//! Choosing a backend: one algorithm a file, all of them pure. Candidates and a request come in, an
//! index comes out; nothing here does I/O, reads a clock or knows what a backend is.
