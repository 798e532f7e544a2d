//! Which bytes are the code of a plugin?
//!
//! Those of its file, or of the shipped plugin of this name; in the place of a version that was rolled back, those of the
//! version before it, which were kept. They have to be the ones that the operator asked for.

use std::{borrow::Cow, time::SystemTime};

use super::{
    builder::Builder,
    error::PluginError,
    files::{read, signature_of, stem},
    loaded::{Loaded, Origin},
    progress::{Refused, Stage},
};
use crate::{
    config::{self, Config},
    plugin::{Demand, Digest, Ended, shipped},
};

/// What is to be loaded.
pub(super) struct Chosen<'a> {
    pub bytes: Cow<'a, [u8]>,
    pub digest: Digest,
    pub origin: Origin,
    /// What stands in the file of its signature, or in its table.
    pub signature: Option<Vec<u8>>,
    /// Why it is not what lies in the file.
    pub refused: Option<Refused>,
}

impl Builder {
    /// What lies in the file or is shipped; in the place of a version that was taken back, the one before it.
    pub(super) fn choose(
        &self,
        name: &str,
        table: &config::Plugin,
        config: &Config,
        known: Option<&Loaded>,
    ) -> Result<Chosen<'static>, PluginError> {
        let file = stem(table.file.as_deref().unwrap_or(name));
        let path = self.plugin_dir(config).join(format!("{file}.wasm"));
        let (bytes, origin): (Cow<'static, [u8]>, _) = match read(&path, config.limits.plugin_size)? {
            Some(bytes) => (bytes.into(), Origin::File(path)),
            None => {
                // What ran from a file does not turn into another plugin because the file has gone.
                let was_file = known.is_some_and(|known| known.origin.file() == Some(&path));
                let shipped = shipped::find(file).filter(|_| !was_file);
                (shipped.ok_or(PluginError::Missing(path))?.into(), Origin::Shipped)
            }
        };
        let demand = Demand {
            sha256: table.sha256,
            signer: table.public_key,
            // Nobody has to vouch for what is part of the executable.
            signers: if origin == Origin::Shipped { &[] } else { &config.plugin_keys },
            signature: table.signature,
        };
        let digest = Digest::of(&bytes);
        if !self.versions.is_taken_back(name, digest) {
            let beside = match origin.file().map(signature_of).transpose() {
                Ok(beside) => beside.flatten(),
                // Nobody has asked for it: it is only kept with the version.
                Err(_) if !demand.wants_signature() => None,
                Err(error) => return Err(error),
            };
            demand
                .check(&bytes, beside.as_deref())
                .map_err(|source| PluginError::Untrusted { path: origin.to_string(), source })?;
            let signature = table.signature.map(|signature| signature.to_string().into_bytes()).or(beside);
            return Ok(Chosen { bytes, digest, origin, signature, refused: None });
        }
        let kept = self.versions.last_good(name).ok_or(PluginError::TakenBack(digest))?.digest;
        let was_refused = known.and_then(|known| known.refused.as_ref());
        // Of this very version, in whose place the same serves. Another has not been spoken of.
        let is_it = |refused: &&Refused| refused.replaced == Some((digest, kept));
        let refused = was_refused.filter(is_it).cloned().unwrap_or_else(|| {
            let candidate = known.and_then(|known| known.candidate.as_ref());
            let candidate = candidate.filter(|candidate| candidate.digest() == digest);
            let ended = candidate.and_then(|candidate| candidate.comparison.ended());
            let (stage, reason) = rolled_back(digest, kept, ended);
            Refused { stage, reason, at: SystemTime::now(), replaced: Some((digest, kept)) }
        });
        let bytes = self.kept(kept, table, config)?;
        Ok(Chosen {
            bytes: bytes.into(),
            digest: kept,
            origin: Origin::Kept(origin.into()),
            signature: self.versions.signature(kept),
            refused: Some(refused),
        })
    }

    /// A version that has served before, if it is what the configuration asks for now: it may be older than what is asked.
    pub(super) fn kept(
        &self,
        kept: Digest,
        table: &config::Plugin,
        config: &Config,
    ) -> Result<Vec<u8>, PluginError> {
        let bytes =
            self.versions.component(kept).map_err(|source| PluginError::Kept { digest: kept, source })?;
        let is_shipped = shipped::SHIPPED.iter().any(|(_, shipped)| **shipped == *bytes);
        let demand = Demand {
            sha256: table.sha256,
            signer: table.public_key,
            signers: if is_shipped { &[] } else { &config.plugin_keys },
            // That of the table is of what lies in the file.
            signature: None,
        };
        let signature = self.versions.signature(kept);
        let path = format!("version {kept}");
        demand
            .check(&bytes, signature.as_deref())
            .map_err(|source| PluginError::Untrusted { path, source })?;
        Ok(bytes)
    }
}

/// How far a version came that was rolled back, and why `kept` serves in its place. `ended` is how its comparison as a canary
/// has ended, if it was one.
fn rolled_back(digest: Digest, kept: Digest, ended: Option<&Ended>) -> (Stage, String) {
    match ended {
        Some(Ended::Failed(reason)) => (
            Stage::Canary,
            format!("version {digest} was tried and rolled back: {reason}; version {kept} serves"),
        ),
        Some(Ended::Passed | Ended::TakenBack) | None => (
            Stage::TakenBack,
            format!("version {digest} was rolled back; version {kept} serves in its place"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::plugin::{Compiler, Engine, EngineSettings};

    /// A builder whose configuration is in `folder`, with plugins in `folder/plugins`.
    fn builder(folder: &Path) -> Builder {
        let engine =
            Engine::new(&EngineSettings { workers: 1, artifacts: None, compiler: Compiler::InProcess })
                .unwrap();
        fs::create_dir(folder.join("plugins")).unwrap();
        Builder::new(engine.into(), folder.to_owned(), None, 0)
    }

    fn chosen(builder: &Builder, name: &str, table: &config::Plugin) -> Result<Chosen<'static>, PluginError> {
        builder.choose(name, table, &toml::from_str("").unwrap(), None)
    }

    #[test]
    fn a_file_comes_before_a_shipped_plugin_of_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let builder = builder(folder.path());
        let path = folder.path().join("plugins/api-key.wasm");
        let table = config::Plugin::default();
        let shipped = chosen(&builder, "api-key", &table).unwrap();
        assert_eq!((shipped.origin, &*shipped.bytes), (Origin::Shipped, shipped::find("api-key").unwrap()));
        fs::write(&path, "own").unwrap();
        let own = chosen(&builder, "api-key", &table).unwrap();
        assert_eq!((own.origin, &*own.bytes), (Origin::File(path.clone()), &b"own"[..]));
        // A table of another name takes the same file.
        let table = config::Plugin { file: Some("api-key.wasm".into()), ..config::Plugin::default() };
        assert_eq!(chosen(&builder, "keys", &table).unwrap().origin, Origin::File(path));
    }

    #[test]
    fn what_is_not_there_or_not_as_asked_for_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let builder = builder(folder.path());
        let error = |name, table| chosen(&builder, name, &table).map(|chosen| chosen.origin).unwrap_err();
        assert!(matches!(error("nobody", config::Plugin::default()), PluginError::Missing(_)));
        let table = toml::from_str(&format!("sha256 = \"{}\"", "0".repeat(64))).unwrap();
        assert!(matches!(error("api-key", table), PluginError::Untrusted { .. }));
    }

    #[test]
    fn a_version_that_was_rolled_back_says_what_serves_and_how_far_it_came() {
        let (digest, kept) = (Digest::of(b"new"), Digest::of(b"old"));
        let failed = Ended::Failed("more errors".to_owned());
        for (ended, stage, part) in [
            (Some(&failed), Stage::Canary, "rolled back: more errors; version "),
            (Some(&Ended::TakenBack), Stage::TakenBack, "serves in its place"),
            (None, Stage::TakenBack, "serves in its place"),
        ] {
            let (told, reason) = rolled_back(digest, kept, ended);
            assert_eq!(told, stage);
            assert!(reason.contains(part) && reason.contains(&kept.to_string()), "{reason}");
        }
    }
}
