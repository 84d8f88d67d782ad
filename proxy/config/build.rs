//! Compiles the protobuf definitions in Rust: no system protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["config.proto", "stream.proto", "ca.proto"];
    let set = protox::compile(files, ["proto"])?;
    // Resources are shown as JSON by debug APIs and `fsm replay`.
    tonic_prost_build::configure()
        .build_transport(false)
        .type_attribute(".fsm.config.v1", "#[derive(serde::Serialize)]")
        .enum_attribute(".fsm.config.v1.InboundRule.route", "#[serde(rename_all = \"snake_case\")]")
        .enum_attribute(".fsm.config.v1.HashKey.of", "#[serde(rename_all = \"snake_case\")]")
        .enum_attribute(".fsm.config.v1.HealthCheck.probe", "#[serde(rename_all = \"snake_case\")]")
        .field_attribute(".fsm.config.v1.Endpoint.weight", "#[serde(skip_serializing_if = \"Option::is_none\")]")
        .field_attribute(
            ".fsm.config.v1.LoadBalancer.algorithm",
            "#[serde(serialize_with = \"crate::json::algorithm\")]",
        )
        .field_attribute(".fsm.config.v1.Settings.names", "#[serde(skip_serializing_if = \"Option::is_none\")]")
        .field_attribute(".fsm.config.v1.Settings.access_log", "#[serde(skip_serializing_if = \"Option::is_none\")]")
        .field_attribute(".fsm.config.v1.Settings.remote_log", "#[serde(skip_serializing_if = \"Option::is_none\")]")
        .field_attribute(".fsm.config.v1.Settings.tracing", "#[serde(skip_serializing_if = \"Option::is_none\")]")
        .field_attribute("format", "#[serde(serialize_with = \"crate::json::log_format\")]")
        .field_attribute("protocol", "#[serde(serialize_with = \"crate::json::protocol\")]")
        .compile_fds(set)?;
    for file in files {
        println!("cargo::rerun-if-changed=proto/{file}");
    }
    Ok(())
}
