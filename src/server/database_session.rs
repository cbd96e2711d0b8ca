//! Who uses a database by a connection that is watched: the user and the database that its client names.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::connection::ConnectionId;
use crate::sniff::queries::MysqlLogin;

/// What a watched connection is used for.
#[derive(Default)]
pub(super) struct DatabaseSession {
    user: RefCell<Option<Arc<str>>>,
    database: RefCell<Option<Arc<str>>>,
    queries: Cell<u64>,
    /// That tidegate took part in, until what follows it is watched.
    login: Cell<Option<MysqlLogin>>,
}

/// Those of a worker's connections that are watched. Others take no room for it.
#[derive(Default)]
pub(super) struct DatabaseSessions(RefCell<HashMap<ConnectionId, Rc<DatabaseSession>>>);

impl DatabaseSession {
    pub(super) fn user(&self) -> Option<Arc<str>> {
        self.user.borrow().clone()
    }

    pub(super) fn database(&self) -> Option<Arc<str>> {
        self.database.borrow().clone()
    }

    /// Queries, answered or not.
    pub(super) fn queries(&self) -> u64 {
        self.queries.get()
    }

    pub(super) fn is_of(&self, user: &str) -> bool {
        self.user.borrow().as_deref() == Some(user)
    }

    pub(super) fn set_user(&self, name: &[u8]) {
        self.user.replace(Some(readable(name)));
    }

    pub(super) fn set_database(&self, name: &[u8]) {
        self.database.replace(Some(readable(name)));
    }

    pub(super) fn set_login(&self, login: MysqlLogin) {
        self.login.set(Some(login));
    }

    pub(super) fn take_login(&self) -> Option<MysqlLogin> {
        self.login.take()
    }

    pub(super) fn count_query(&self) {
        self.queries.set(self.queries.get() + 1);
    }
}

/// A name as text: bytes that are none become U+FFFD.
fn readable(name: &[u8]) -> Arc<str> {
    String::from_utf8_lossy(name).into()
}

impl DatabaseSessions {
    /// A new one, which stays until it is taken.
    pub(super) fn begin(&self, connection: ConnectionId) -> Rc<DatabaseSession> {
        Rc::clone(self.0.borrow_mut().entry(connection).or_default())
    }

    pub(super) fn get(&self, connection: ConnectionId) -> Option<Rc<DatabaseSession>> {
        let sessions = self.0.borrow();
        // No hash is made where nothing is watched.
        if sessions.is_empty() { None } else { sessions.get(&connection).map(Rc::clone) }
    }

    /// Takes the one of a connection that ends.
    pub(super) fn end(&self, connection: ConnectionId) -> Option<Rc<DatabaseSession>> {
        let mut sessions = self.0.borrow_mut();
        let ended = if sessions.is_empty() { None } else { sessions.remove(&connection) };
        if sessions.is_empty() && sessions.capacity() > KEPT_SESSIONS {
            *sessions = HashMap::new();
        }
        ended
    }
}

/// Places that a worker keeps while no connection is watched.
const KEPT_SESSIONS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_is_there_until_its_connection_ends() {
        let (sessions, ids) = (DatabaseSessions::default(), super::super::connection::ConnectionIds::new());
        let [one, two] = [1, 2].map(|number| ids.id(0, number));
        sessions.begin(one).set_user(b"al\xffice");
        sessions.begin(one).set_database(b"shop");
        let session = sessions.get(one).unwrap();
        assert_eq!((session.user().as_deref(), session.database().as_deref()), (Some("al\u{fffd}ice"), Some("shop")));
        assert!(session.is_of("al\u{fffd}ice") && !session.is_of("alice"));
        assert!(sessions.get(two).is_none() && sessions.end(two).is_none());
        assert!(sessions.end(one).is_some() && sessions.get(one).is_none());
        let many = (0..1000).map(|number| ids.id(1, number)).collect::<Vec<_>>();
        many.iter().for_each(|id| _ = sessions.begin(*id));
        many.iter().for_each(|id| _ = sessions.end(*id));
        assert_eq!(sessions.0.borrow().capacity(), 0);
    }
}
