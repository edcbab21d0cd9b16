//! MQTT 3.1.1 connections over any byte stream.
