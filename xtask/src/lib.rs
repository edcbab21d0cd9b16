//! The orchestrator of KEdge.
