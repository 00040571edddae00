//! Tests of the worker's core.
