//! What lies in the folder of plugins, or is named by the configuration, and is no file that can be read.

use std::{fs, os::unix::fs::symlink, path::Path};

use rustix::fs::{CWD, Mode, mkfifoat};
use tollgate_tests::{Executable, Origin, Proxy, guest, guest_version, logged, through, until};

use crate::TOLLGATE;

fn fifo(path: &Path) {
    mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).expect("a FIFO can be made");
}

#[tokio::test]
async fn what_is_no_file_holds_up_neither_start_nor_reload() {
    let origin = Origin::start().await;
    for kind in ["fifo", "endless"] {
        let put = |folder: &Path, name: &str| match kind {
            "fifo" => fifo(&folder.join("plugins").join(name)),
            _ => symlink("/dev/zero", folder.join("plugins").join(name)).expect("a link can be made"),
        };
        let served = format!("{kind}-served");
        let config = through(&origin, &served, "config = { request = \"version\" }");
        let proxy = Proxy::start_with(&config, &[(&served, guest())]).await;
        for name in ["stranger.toml", "stranger.wasm", "other.wasm.sig", "alone.toml"] {
            put(proxy.folder(), name);
        }
        proxy.drop_plugin("other", &guest());
        proxy.reload_files().await.expect("what serves goes on");
        assert_eq!(proxy.get("/", &[]).await.text(), "guest-version-0000");
        // Beside the plugin that serves: it stays.
        put(proxy.folder(), &format!("{served}.test.toml"));
        proxy.drop_plugin(&served, &guest_version(1));
        proxy.reload_files().await.expect("what serves goes on");
        assert!(!logged(&["new version not used", &served, "only regular files are read"]).is_empty());
        assert_eq!(proxy.get("/", &[]).await.text(), "guest-version-0000");

        // Nor can a proxy start with it where it is needed.
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        fs::create_dir(folder.path().join("plugins")).expect("a folder can be made");
        put(folder.path(), "needed.wasm");
        let config = through(&origin, "needed", "") + &tollgate_tests::listener("");
        fs::write(folder.path().join("config.toml"), config).expect("a file can be written");
        let (status, _, errors) = Executable::start(TOLLGATE, folder.path(), &["check"]).end().await;
        assert_eq!(status.code(), Some(2), "{errors}");
        assert!(errors.contains("needed.wasm") && errors.contains("only regular files are read"), "{errors}");
    }
}

#[tokio::test]
async fn a_configuration_that_is_no_file_is_told_as_that() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    fifo(&folder.path().join("fifo.toml"));
    for file in ["fifo.toml", "/dev/zero"] {
        let (status, _, errors) =
            Executable::start(TOLLGATE, folder.path(), &["check", "--config", file]).end().await;
        assert_eq!(status.code(), Some(2), "{errors}");
        assert!(errors.contains("only regular files are read"), "{file}: {errors}");
    }
}

#[tokio::test]
async fn a_certificate_and_a_secret_that_are_no_files_are_told_as_that() {
    let origin = Origin::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    fifo(&folder.path().join("fifo"));
    let route = tollgate_tests::route_to(&[&origin.url()]);
    let tls = tollgate_tests::listener("tls.certificates = [{ certificate = \"fifo\", key = \"fifo\" }]");
    let secret = "[plugins.jwt]\ngrants = { secrets = { key = { file = \"fifo\" } } }\n";
    for config in [format!("{route}{tls}"), format!("{route}{secret}{}", tollgate_tests::listener(""))] {
        fs::write(folder.path().join("config.toml"), &config).expect("a file can be written");
        let (status, _, errors) = Executable::start(TOLLGATE, folder.path(), &["check"]).end().await;
        assert_eq!(status.code(), Some(2), "{config}: {errors}");
        assert!(errors.contains("fifo"), "{config}: {errors}");
    }
}

#[tokio::test]
async fn tests_beside_a_plugin_read_no_other_file_and_tell_no_settings() {
    let origin = Origin::start().await;
    let others = "[plugins.secretive]\nfile = \"guest\"\nconfig = { request = \"mark\", says = \"hunter2-of-another\" }\n";
    let own = "config = { request = \"mark\", says = \"hunter2-of-its-own\" }";
    let config = format!("{}{others}", through(&origin, "curious", own));
    let proxy = Proxy::start_with(&config, &[("curious", guest()), ("guest", guest())]).await;
    let tests = |mark: &str| {
        format!(
            "config-from = {{ file = \"../config.toml\", plugin = \"secretive\" }}\n[[case]]\nname = \"it marks\"\n\
             request = {{}}\nexpect = {{ headers = {{ x-mark = \"{mark}\" }} }}\n"
        )
    };
    let path = proxy.folder().join("plugins/curious.test.toml");
    fs::write(&path, tests("nothing")).expect("a file can be written");
    proxy.drop_plugin("curious", &guest_version(1));
    proxy.reload_files().await.expect("what serves goes on");
    until("the refusal", || !logged(&["new version not used", "curious", "it fails its tests"]).is_empty())
        .await;
    let told = proxy.told("/api/plugins").await.to_string();
    for lines in [logged(&["hunter2"]).join("\n"), told] {
        assert!(!lines.contains("hunter2"), "{lines}");
    }
    // It is tried with the settings that it runs with.
    fs::write(&path, tests("hunter2-of-its-own")).expect("a file can be written");
    proxy.reload_files().await.expect("it passes");
    let plugins = proxy.told("/api/plugins").await["plugins"].clone();
    let curious =
        plugins.as_array().into_iter().flatten().find(|plugin| plugin["name"] == "curious").cloned();
    assert_eq!(curious.expect("it is there")["tests-passed"], 1);
}
