//! The columns of HAProxy's statistics, as HAProxy 2.6 orders them (its management guide, 9.1), and the cell of each in
//! the three kinds of rows. A column without a cell is empty: tidegate has no agents, caches, compression or HTTP/2.

use std::fmt::Display;

use super::rows::{Frontend, Group, Server, algorithm, mode};
use crate::config::model::ListenerState;
use crate::stats::http::StatusClass;
use crate::stats::latency::Stage;
use crate::stats::termination::Termination;

/// A column: its name, and what it shows in each kind of row.
#[derive(Clone, Copy)]
pub(super) struct Column {
    pub(super) name: &'static str,
    frontend: Option<fn(&Frontend<'_>) -> Cell>,
    server: Option<fn(&Server<'_>) -> Cell>,
    backend: Option<fn(&Group<'_>) -> Cell>,
    /// In rows of servers and backends that have no cell of their own.
    both: Option<fn(&Group<'_>) -> Cell>,
}

/// `None` is an empty cell.
pub(super) type Cell = Option<String>;

/// Averages are of the last minute and in milliseconds, rates of the last second, maxima since the start.
pub(super) const COLUMNS: [Column; 128] = [
    column("pxname").frontend(|row| text(&row.listener.name)).both(|row| text(&row.pool.name)),
    column("svname").frontend(|_| text("FRONTEND")).server(|row| text(&row.backend.name)).backend(|_| text("BACKEND")),
    // Connections wait for a pool, not for one of its servers.
    column("qcur").server(|_| number(0)).backend(|row| number(row.pool.queue.waiting)),
    column("qmax").server(|_| number(0)).backend(|row| number(row.pool.queue.waiting_max)),
    column("scur")
        .frontend(|row| number(row.listener.open))
        .server(|row| number(row.backend.open))
        .backend(|row| number(row.pool.open)),
    column("smax")
        .frontend(|row| number(row.listener.open_max))
        .server(|row| number(row.backend.open_max))
        .backend(|row| number(row.pool.open_max)),
    column("slim")
        .frontend(|row| number(row.listener.max_connections.map_or(row.snapshot.plane.capacity as u64, u64::from)))
        .server(|row| row.backend.max_connections.and_then(number))
        .backend(|row| number(row.connection_limit()?)),
    column("stot")
        .frontend(|row| number(row.listener.accepted))
        .backend(|row| number(row.pool.rejected + row.sum(|backend| backend.connections)))
        .both(|row| number(row.sum(|backend| backend.connections))),
    column("bin").frontend(|row| number(row.listener.bytes_in)).both(|row| number(row.sum(|backend| backend.bytes_in))),
    column("bout")
        .frontend(|row| number(row.listener.bytes_out))
        .both(|row| number(row.sum(|backend| backend.bytes_out))),
    column("dreq").frontend(|row| number(row.ended(&REJECTED_BY_RULE))),
    column("dresp"),
    column("ereq").frontend(|row| number(row.ended(&INVALID_REQUEST))),
    column("econ").both(|row| number(row.sum(|backend| backend.connect_failures))),
    column("eresp").both(|row| number(row.sum(|backend| backend.failures))),
    // Every retry goes to another backend.
    column("wretr").both(|row| number(row.sum(|backend| backend.retries))),
    column("wredis").both(|row| number(row.sum(|backend| backend.retries))),
    column("status")
        .frontend(|row| {
            let accepts = !row.snapshot.draining && row.listener.state == ListenerState::Ready;
            text(if accepts { "OPEN" } else { "STOP" })
        })
        .server(|row| text(row.status()))
        .backend(|row| text(if row.pool.usable { "UP" } else { "DOWN" })),
    column("weight").server(|row| number(row.backend.weight)).backend(|row| number(row.weight())),
    column("act").server(|row| number(u8::from(!row.backend.backup))).backend(|row| number(row.up(false).count())),
    column("bck").server(|row| number(u8::from(row.backend.backup))).backend(|row| number(row.up(true).count())),
    column("chkfail").server(|row| number(row.backend.checks.as_ref()?.failed)),
    column("chkdown")
        .server(|row| row.backend.checks.as_ref().and(number(row.backend.downs)))
        .backend(|row| number(row.pool.downs)),
    column("lastchg")
        .server(|row| number(row.seconds_since(row.backend.since)))
        .backend(|row| number(row.seconds_since(row.pool.since))),
    column("downtime")
        .server(|row| row.backend.checks.as_ref().and(number(row.backend.downtime as u64)))
        .backend(|row| number(row.pool.downtime as u64)),
    column("qlimit"),
    column("pid").frontend(|_| number(1)).both(|_| number(1)),
    column("iid").frontend(|row| number(row.number)).both(|row| number(row.number)),
    column("sid").frontend(|_| number(0)).server(|row| number(row.place)).backend(|_| number(0)),
    column("throttle"),
    column("lbtot").both(|row| number(row.sum(|backend| backend.connections))),
    column("tracked"),
    column("type").frontend(|_| number(0)).server(|_| number(2)).backend(|_| number(1)),
    column("rate")
        .frontend(|row| number(row.listener.rate.now))
        .server(|row| number(row.backend.rate.now))
        .backend(|row| number(row.pool.rate.now)),
    column("rate_lim").frontend(|row| number(row.listener.rate_limit.map_or(0, |limit| limit.ceil() as u64))),
    column("rate_max")
        .frontend(|row| number(row.listener.rate.max))
        .server(|row| number(row.backend.rate.max))
        .backend(|row| number(row.pool.rate.max)),
    column("check_status").server(|row| text(row.check_status()?)),
    column("check_code").server(|row| number(row.check_code()?)),
    column("check_duration").server(|row| number(row.last_check()?.took_us / 1000)),
    column("hrsp_1xx")
        .frontend(|row| number(row.responses(StatusClass::Informational)?))
        .both(|row| number(row.responses(StatusClass::Informational)?)),
    column("hrsp_2xx")
        .frontend(|row| number(row.responses(StatusClass::Successful)?))
        .both(|row| number(row.responses(StatusClass::Successful)?)),
    column("hrsp_3xx")
        .frontend(|row| number(row.responses(StatusClass::Redirection)?))
        .both(|row| number(row.responses(StatusClass::Redirection)?)),
    column("hrsp_4xx")
        .frontend(|row| number(row.responses(StatusClass::ClientError)?))
        .both(|row| number(row.responses(StatusClass::ClientError)?)),
    column("hrsp_5xx")
        .frontend(|row| number(row.responses(StatusClass::ServerError)?))
        .both(|row| number(row.responses(StatusClass::ServerError)?)),
    column("hrsp_other")
        .frontend(|row| row.listener.counts_requests.then_some(0).and_then(number))
        .both(|row| row.is_http().then_some(0).and_then(number)),
    column("hanafail"),
    column("req_rate").frontend(|row| number(row.listener.request_rate.now)),
    column("req_rate_max").frontend(|row| number(row.listener.request_rate.max)),
    column("req_tot").frontend(|row| number(row.requests())).both(|row| number(row.requests()?)),
    column("cli_abrt").both(|row| number(row.sum(|backend| backend.client_aborts))),
    column("srv_abrt").both(|row| number(row.sum(|backend| backend.failures))),
    column("comp_in"),
    column("comp_out"),
    column("comp_byp"),
    column("comp_rsp"),
    column("lastsess").both(|row| text(row.seconds_since_last_connection())),
    column("last_chk").server(|row| row.last_check()?.reason.clone()),
    column("last_agt"),
    column("qtime").both(|row| number(row.mean_ms(Stage::Queue))),
    column("ctime").both(|row| number(row.mean_ms(Stage::Connect))),
    column("rtime").both(|row| number(row.mean_ms(row.first_byte()))),
    column("ttime").both(|row| number(row.mean_ms(Stage::Session))),
    column("agent_status"),
    column("agent_code"),
    column("agent_duration"),
    column("check_desc").server(|row| Some(format!("{} check {}", row.check_layer()?, row.check_result()?))),
    column("agent_desc"),
    column("check_rise").server(|row| row.last_check().and(row.pool.rise).and_then(number)),
    column("check_fall").server(|row| row.last_check().and(row.pool.fall).and_then(number)),
    column("check_health").server(|row| number(row.check_health()?)),
    column("agent_rise"),
    column("agent_fall"),
    column("agent_health"),
    column("addr").server(|row| text(&row.backend.address)),
    column("cookie"),
    column("mode").frontend(|row| text(mode(row.listener.counts_requests))).both(|row| text(mode(row.is_http()))),
    column("algo").backend(|row| text(algorithm(row.pool.balance))),
    column("conn_rate").frontend(|row| number(row.listener.rate.now)),
    column("conn_rate_max").frontend(|row| number(row.listener.rate.max)),
    column("conn_tot").frontend(|row| number(row.listener.accepted)),
    column("intercepted"),
    column("dcon").frontend(|row| number(row.ended(&REJECTED_BY_LIMIT))),
    column("dses").frontend(|_| number(0)),
    column("wrew"),
    column("connect").both(|row| number(row.sum(|backend| backend.connections + backend.connect_failures))),
    column("reuse"),
    column("cache_lookups"),
    column("cache_hits"),
    column("srv_icur"),
    column("src_ilim"),
    column("qtime_max").both(|row| number(row.max_ms(Stage::Queue))),
    column("ctime_max").both(|row| number(row.max_ms(Stage::Connect))),
    column("rtime_max").both(|row| number(row.max_ms(row.first_byte()))),
    column("ttime_max").both(|row| number(row.max_ms(Stage::Session))),
    column("eint").frontend(|row| number(row.ended(&[Termination::InternalError]))),
    column("idle_conn_cur"),
    column("safe_conn_cur"),
    column("used_conn_cur").server(|row| number(row.backend.open)),
    column("need_conn_est"),
    column("uweight").server(|row| number(row.backend.weight)).backend(|row| number(row.weight())),
    column("agg_server_status"),
    column("agg_server_check_status"),
    column("agg_check_status"),
    column("-").frontend(|_| text('-')).both(|_| text('-')),
    column("ssl_sess")
        .frontend(|row| number(row.listener.handshakes.map_or(0, |handshakes| handshakes.full)))
        .both(|row| number(row.sum(|backend| backend.handshakes.map_or(0, |handshakes| handshakes.full)))),
    column("ssl_reused_sess")
        .frontend(|row| number(row.listener.handshakes.map_or(0, |handshakes| handshakes.resumed)))
        .both(|row| number(row.sum(|backend| backend.handshakes.map_or(0, |handshakes| handshakes.resumed)))),
    column("ssl_failed_handshake").frontend(|row| number(row.failed_handshakes())),
    column("h2_headers_rcvd"),
    column("h2_data_rcvd"),
    column("h2_settings_rcvd"),
    column("h2_rst_stream_rcvd"),
    column("h2_goaway_rcvd"),
    column("h2_detected_conn_protocol_errors"),
    column("h2_detected_strm_protocol_errors"),
    column("h2_rst_stream_resp"),
    column("h2_goaway_resp"),
    column("h2_open_connections"),
    column("h2_backend_open_streams"),
    column("h2_total_connections"),
    column("h2_backend_total_streams"),
    column("h1_open_connections"),
    column("h1_open_streams"),
    column("h1_total_connections"),
    column("h1_total_streams"),
    column("h1_bytes_in"),
    column("h1_bytes_out"),
    column("h1_spliced_bytes_in"),
    column("h1_spliced_bytes_out"),
];

/// Clients that sent all they had to, and are not let in.
const REJECTED_BY_RULE: [Termination; 5] = [
    Termination::UnknownName,
    Termination::UntrustedProxyHeader,
    Termination::HandshakeLimit,
    Termination::AccessDenied,
    Termination::RouteRefused,
];
const REJECTED_BY_LIMIT: [Termination; 3] =
    [Termination::AddressConnections, Termination::AddressRate, Termination::ListenerRate];
/// Clients that did not send what they had to.
const INVALID_REQUEST: [Termination; 7] = [
    Termination::PreambleTimeout,
    Termination::HandshakeTimeout,
    Termination::HandshakeFailed,
    Termination::NotTls,
    Termination::BadClientHello,
    Termination::BadRequest,
    Termination::BadProxyHeader,
];

const fn column(name: &'static str) -> Column {
    Column { name, frontend: None, server: None, backend: None, both: None }
}

impl Column {
    const fn frontend(self, cell: fn(&Frontend<'_>) -> Cell) -> Column {
        Column { frontend: Some(cell), ..self }
    }

    const fn server(self, cell: fn(&Server<'_>) -> Cell) -> Column {
        Column { server: Some(cell), ..self }
    }

    const fn backend(self, cell: fn(&Group<'_>) -> Cell) -> Column {
        Column { backend: Some(cell), ..self }
    }

    const fn both(self, cell: fn(&Group<'_>) -> Cell) -> Column {
        Column { both: Some(cell), ..self }
    }

    pub(super) fn of_frontend(&self, row: &Frontend<'_>) -> Cell {
        self.frontend?(row)
    }

    pub(super) fn of_server(&self, row: &Server<'_>) -> Cell {
        match self.server {
            Some(cell) => cell(row),
            None => self.both?(row),
        }
    }

    pub(super) fn of_backend(&self, row: &Group<'_>) -> Cell {
        self.backend.or(self.both)?(row)
    }
}

fn text(text: impl Display) -> Cell {
    Some(text.to_string())
}

fn number(number: impl Display) -> Cell {
    Some(number.to_string())
}
