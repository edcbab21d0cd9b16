//! The simulated edge runtime against the real hub, with the real sensor as its module.

#[cfg(test)]
mod deployments;
#[cfg(test)]
mod gateway;
#[cfg(test)]
mod killed;
#[cfg(test)]
mod leaf;
#[cfg(test)]
mod local_apis;
#[cfg(test)]
mod methods;
#[cfg(test)]
mod module_calls;
#[cfg(test)]
mod programs;
#[cfg(test)]
mod provisioning;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod relay;
#[cfg(test)]
mod store;
#[cfg(test)]
mod task_engine;
#[cfg(test)]
mod telemetry;
#[cfg(test)]
mod world;
