//! `pools[].health.postgres`, `mysql`, `redis`.

use std::time::Duration;

use super::{Checker, copied, optional_period, value};
use crate::config::located::Located;
use crate::config::model::{
    BackendAddress, BackendConfig, DatabaseAccount, Health, HealthCheck, MysqlCheck, OnConflict, PostgresCheck,
    RedisCheck, RequiredRole,
};
use crate::config::raw::{RawMysql, RawMysqlRole, RawPlaintext, RawPool, RawPostgres, RawRedis, RawRole};
use crate::config::report::{Diagnostic, shown};
use crate::config::scalars::{ByteCount, FilePath, Percent};
use crate::config::tree::NodeId;

/// Longest name of a user or database, in bytes. PostgreSQL has 63, MySQL 80.
const MAX_ACCOUNT_NAME: usize = 255;

/// Whose password it is without `user`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum UserRule {
    /// There is none.
    Named,
    /// The default user's.
    Default,
}

impl Checker<'_> {
    pub(super) fn postgres(&mut self, raw: &RawPostgres) -> HealthCheck {
        let account = self.account(raw.user.as_ref(), raw.password_file.as_ref(), UserRule::Named);
        let role = raw.role.as_ref().map(|key| key.at);
        let wanted = copied(raw.role.as_ref()).map_or(RequiredRole::Any, required);
        self.role_needs_user(wanted, role, &account);
        let max_lag = copied(raw.max_lag.as_ref()).and_then(|ByteCount(most)| most);
        if let (Some(_), Some(key)) = (max_lag, &raw.max_lag) {
            self.lag_needs_replica(wanted, key.at);
        }
        let database = value(raw.database.as_ref());
        if let Some((database, at)) = database {
            self.account_name(database, at);
        }
        let database = database.map_or("postgres", |(database, _)| database).to_owned();
        HealthCheck::Postgres(PostgresCheck { account, database, role: wanted, max_lag })
    }

    pub(super) fn mysql(&mut self, raw: &RawMysql) -> HealthCheck {
        let account = self.account(raw.user.as_ref(), raw.password_file.as_ref(), UserRule::Named);
        let wanted = match copied(raw.role.as_ref()) {
            None | Some(RawMysqlRole::Any) => RequiredRole::Any,
            Some(RawMysqlRole::Primary) => RequiredRole::Primary,
            Some(RawMysqlRole::Replica) => RequiredRole::Replica,
            Some(RawMysqlRole::PreferReplica) => RequiredRole::PreferReplica,
            Some(RawMysqlRole::Synced) => RequiredRole::Synced,
        };
        self.role_needs_user(wanted, raw.role.as_ref().map(|key| key.at), &account);
        let max_lag = optional_period(raw.max_lag.as_ref(), Duration::ZERO);
        if let (Some(_), Some(key)) = (max_lag, &raw.max_lag) {
            self.lag_needs_replica(wanted, key.at);
        }
        HealthCheck::Mysql(MysqlCheck { account, role: wanted, max_lag })
    }

    pub(super) fn redis(&mut self, raw: &RawRedis, at: NodeId) -> HealthCheck {
        let account = self.account(raw.user.as_ref(), raw.password_file.as_ref(), UserRule::Default);
        if let (Some(key), None) = (&raw.user, &account.password_file)
            && key.value.is_some()
        {
            let diagnostic = Diagnostic::new("a user without a password does not log in");
            self.error(key.at, diagnostic.hint("set password_file, or remove `user`"));
        }
        let role = copied(raw.role.as_ref()).map_or(RequiredRole::Any, required);
        let plaintext = copied(raw.plaintext.as_ref()) == Some(RawPlaintext::Allow);
        if plaintext && account.password_file.is_none() {
            let at = raw.plaintext.as_ref().map_or(at, |key| key.at);
            self.warning(at, Diagnostic::new("has no effect").hint("without password_file no password is sent"));
        }
        HealthCheck::Redis(RedisCheck { account, role, plaintext })
    }

    /// Requires TLS, or consent, for a password that goes to other hosts in clear text.
    pub(super) fn clear_password(&mut self, raw: &RawPool, health: &Health, backends: &[BackendConfig]) {
        let HealthCheck::Redis(RedisCheck {
            account: DatabaseAccount { password_file: Some(_), .. }, plaintext, ..
        }) = &health.check
        else {
            return;
        };
        let is_remote = |backend: &&BackendConfig| match &backend.address {
            BackendAddress::Ip(address) => !address.ip().to_canonical().is_loopback(),
            BackendAddress::Name { host, .. } => host != "localhost",
            BackendAddress::Unix(_) => false,
        };
        let place = value(raw.health.as_ref()).and_then(|(health, _)| value(health.redis.as_ref()));
        let place = place.and_then(|(redis, _)| redis.password_file.as_ref());
        if let (None, false, Some(remote), Some(key)) = (&raw.tls, plaintext, backends.iter().find(is_remote), place) {
            let remote = shown(&remote.name);
            let diagnostic = Diagnostic::new(format!("the password would go to backend `{remote}` in clear text"));
            self.error(key.at, diagnostic.hint("set pools[].tls; or `plaintext: allow`, if the network is trusted"));
        }
    }

    /// What a pool of a primary does with several, and never does.
    pub(super) fn primaries(&mut self, raw: &RawPool, health: Option<&Health>) {
        let role = health.and_then(|health| health.check.role());
        if let (Some((OnConflict::Newest, at)), true) =
            (value(raw.on_conflict.as_ref()), role != Some(RequiredRole::Primary))
        {
            let diagnostic = Diagnostic::new("has no effect without a health check of `role: primary`");
            self.warning(
                at,
                diagnostic.hint("set `role: primary` in health.postgres, mysql or redis, or remove this key"),
            );
        }
        let fail_open = value(raw.fail_open.as_ref()).filter(|(Percent(percent), _)| *percent > 0);
        if let (Some((_, at)), Some(RequiredRole::Primary)) = (fail_open, role) {
            let diagnostic = Diagnostic::new("would send writes to replicas: `role: primary` is wanted");
            self.error(at, diagnostic.hint("remove `fail_open`; clients can wait for a primary by `queue`"));
        }
    }

    /// The account, whose password file must be readable.
    fn account(
        &mut self,
        user: Option<&Located<String>>,
        password_file: Option<&Located<FilePath>>,
        rule: UserRule,
    ) -> DatabaseAccount {
        let user = value(user);
        if let Some((user, at)) = user {
            self.account_name(user, at);
        }
        let file = value(password_file);
        if let Some((FilePath(path), at)) = file {
            self.secret_file(path, at);
            if user.is_none() && rule == UserRule::Named {
                let diagnostic = Diagnostic::new("the password is of no user");
                self.error(at, diagnostic.hint("set `user`, or remove password_file"));
            }
        }
        DatabaseAccount {
            user: user.map(|(user, _)| user.clone()),
            password_file: file.map(|(FilePath(path), _)| path.clone().into()),
        }
    }

    /// Checks a name that a protocol ends by a zero byte.
    fn account_name(&mut self, name: &str, at: NodeId) {
        if name.is_empty() {
            self.error(at, Diagnostic::new("must not be empty").hint("remove the key instead"));
        } else if name.contains(char::is_control) {
            self.error(at, Diagnostic::new("control characters are not allowed"));
        } else if name.len() > MAX_ACCOUNT_NAME {
            let diagnostic = Diagnostic::new(format!("{} bytes long", name.len()));
            self.error(at, diagnostic.hint(format!("at most {MAX_ACCOUNT_NAME}")));
        }
    }

    fn role_needs_user(&mut self, wanted: RequiredRole, at: Option<NodeId>, account: &DatabaseAccount) {
        if let (Some(at), None) = (at, &account.user)
            && wanted != RequiredRole::Any
        {
            let role = self.tree.text(at).unwrap_or_default();
            let diagnostic = Diagnostic::new(format!("role `{}` requires a login", shown(role)));
            self.error(at, diagnostic.hint("set `user`, and password_file if the user has a password"));
        }
    }

    fn lag_needs_replica(&mut self, wanted: RequiredRole, at: NodeId) {
        if !wanted.is_of_replicas() {
            let diagnostic = Diagnostic::new("max_lag requires `role: replica`");
            self.error(
                at,
                diagnostic.hint(
                    "only a replica can be behind: set `role: replica` or `role: prefer_replica`, or remove this key",
                ),
            );
        }
    }
}

fn required(role: RawRole) -> RequiredRole {
    match role {
        RawRole::Any => RequiredRole::Any,
        RawRole::Primary => RequiredRole::Primary,
        RawRole::Replica => RequiredRole::Replica,
        RawRole::PreferReplica => RequiredRole::PreferReplica,
    }
}
