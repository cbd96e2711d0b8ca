//! Commands (`COM_…`).

#![forbid(unsafe_code)]

pub(super) const QUIT: u8 = 0x01;
pub(super) const INIT_DB: u8 = 0x02;
pub(super) const QUERY: u8 = 0x03;
pub(super) const FIELD_LIST: u8 = 0x04;
pub(super) const PROCESS_INFO: u8 = 0x0a;
pub(super) const PROCESS_KILL: u8 = 0x0c;
pub(super) const PING: u8 = 0x0e;
pub(super) const CHANGE_USER: u8 = 0x11;
pub(super) const BINLOG_DUMP: u8 = 0x12;
pub(super) const TABLE_DUMP: u8 = 0x13;
pub(super) const STMT_PREPARE: u8 = 0x16;
pub(super) const STMT_EXECUTE: u8 = 0x17;
pub(super) const STMT_SEND_LONG_DATA: u8 = 0x18;
pub(super) const STMT_CLOSE: u8 = 0x19;
pub(super) const STMT_RESET: u8 = 0x1a;
pub(super) const SET_OPTION: u8 = 0x1b;
pub(super) const STMT_FETCH: u8 = 0x1c;
pub(super) const BINLOG_DUMP_GTID: u8 = 0x1e;
pub(super) const RESET_CONNECTION: u8 = 0x1f;
pub(super) const CLONE: u8 = 0x20;
pub(super) const SUBSCRIBE_GROUP_REPLICATION: u8 = 0x21;
pub(super) const STMT_BULK_EXECUTE: u8 = 0xfa;
/// The last that has an answer of one packet (COM_CREATE_DB to COM_RESET_CONNECTION).
pub(super) const LAST_PLAIN: u8 = 0x1f;
