//! A terminal: a pseudo-terminal and a small emulation of what a program draws on it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::process::{Process, bound, require};
use super::{DEADLINE, eventually};

/// A program in a terminal of its own.
pub(crate) struct Terminal {
    process: Process,
    controller: File,
    /// Kept open, so that what was written can be read after the program's end.
    program_side: OwnedFd,
    screen: Arc<Mutex<Screen>>,
}

impl Terminal {
    /// Starts a program on a screen of this size.
    pub(crate) fn start(program: &str, arguments: &[&str], columns: u16, lines: u16) -> Terminal {
        // Without it, the program could look at the terminal of whoever runs the tests.
        require("setsid", "util-linux");
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&controller).expect("grantpt");
        unlockpt(&controller).expect("unlockpt");
        let name = ptsname(&controller, Vec::new()).expect("its name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let program_side = rustix::fs::open(name, flags, Mode::empty()).expect("the program's side");
        resize(&controller, columns, lines);
        let stdio = || Stdio::from(program_side.try_clone().expect("a copy"));
        let mut command = bound("setsid", "KILL");
        command.arg(program).args(arguments).env("TERM", "xterm-256color").stdout(stdio()).stderr(stdio());
        let process = Process::start_with(command, stdio(), Signal::KILL);
        let controller = File::from(controller);
        let screen = Arc::new(Mutex::new(Screen::new(columns, lines)));
        thread::spawn({
            let (mut output, screen) = (controller.try_clone().expect("a copy"), Arc::clone(&screen));
            move || {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = output.read(&mut bytes) {
                    screen.lock().expect("no panic under it").feed(&bytes[..count]);
                }
            }
        });
        Terminal { process, controller, program_side, screen }
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.controller.write_all(keys.as_bytes()).expect("the terminal");
    }

    pub(crate) fn resize(&self, columns: u16, lines: u16) {
        *self.screen.lock().expect("the reader lives") = Screen::new(columns, lines);
        resize(&self.controller, columns, lines);
        self.process.signal(Signal::WINCH);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// What is on the screen, line by line.
    pub(crate) fn text(&self) -> String {
        self.screen.lock().expect("the reader lives").text()
    }

    /// Waits until this is on the screen.
    pub(crate) fn wait_for(&self, text: &str) {
        self.wait_until(text, |screen| screen.contains(text));
    }

    pub(crate) fn wait_until(&self, what: &str, condition: impl Fn(&str) -> bool) {
        let found = super::holds_within(DEADLINE, || condition(&self.text()));
        assert!(found, "not on the screen: {what}\n{}", self.text());
    }

    /// How the program ended; the test fails when it leaves the other screen on, or the cursor off.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status = self.process.wait(DEADLINE).expect("the program ends");
        // What it wrote last may not have been read yet.
        eventually(DEADLINE, "the main screen, and the cursor", || !self.is_alternate() && self.shows_cursor());
        status
    }

    /// Whether the screen is the other one, that programs draw on.
    pub(crate) fn is_alternate(&self) -> bool {
        self.screen.lock().expect("the reader lives").alternate
    }

    pub(crate) fn shows_cursor(&self) -> bool {
        !self.screen.lock().expect("the reader lives").hides_cursor
    }

    /// Whether lines are edited and letters shown as they are typed, as a shell's user expects it.
    pub(crate) fn is_cooked(&self) -> bool {
        let modes = tcgetattr(self.program_side.as_fd()).expect("its modes").local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }
}

fn resize(terminal: impl AsFd, columns: u16, lines: u16) {
    let size = Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).expect("its size");
}

/// Letters on a screen: as much of ECMA-48 and of xterm's modes as is drawn with.
struct Screen {
    cells: Vec<Vec<char>>,
    line: usize,
    column: usize,
    alternate: bool,
    hides_cursor: bool,
    /// What is not yet complete.
    rest: Vec<u8>,
}

impl Screen {
    fn new(columns: u16, lines: u16) -> Screen {
        let cells = vec![vec![' '; columns.into()]; lines.into()];
        Screen { cells, line: 0, column: 0, alternate: false, hides_cursor: false, rest: Vec::new() }
    }

    fn text(&self) -> String {
        self.cells.iter().map(|line| line.iter().collect::<String>().trim_end().to_owned() + "\n").collect()
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let bytes = std::mem::take(&mut self.rest);
        let mut place = 0;
        while let Some(length) = self.take(&bytes[place..]) {
            place += length;
        }
        self.rest = bytes[place..].to_vec();
    }

    /// Does what the first of these bytes say; `None` when they are not complete.
    fn take(&mut self, bytes: &[u8]) -> Option<usize> {
        match *bytes.first()? {
            b'\x1b' => {
                if *bytes.get(1)? != b'[' {
                    return Some(2);
                }
                let end = bytes[2..].iter().position(|byte| (0x40..0x7f).contains(byte))? + 2;
                let parameters = String::from_utf8_lossy(&bytes[2..end]).into_owned();
                self.control(&parameters, bytes[end]);
                Some(end + 1)
            }
            b'\r' => {
                self.column = 0;
                Some(1)
            }
            b'\n' => {
                self.line += 1;
                Some(1)
            }
            0..0x20 | 0x7f => Some(1),
            first => {
                let length = match first {
                    0..0x80 => 1,
                    0x80..0xe0 => 2,
                    0xe0..0xf0 => 3,
                    _ => 4,
                };
                let letter = std::str::from_utf8(bytes.get(..length)?).expect("UTF-8").chars().next()?;
                if let Some(cell) = self.cells.get_mut(self.line).and_then(|line| line.get_mut(self.column)) {
                    *cell = letter;
                }
                self.column += 1;
                Some(length)
            }
        }
    }

    fn control(&mut self, parameters: &str, last: u8) {
        let number = |place: usize| parameters.split(';').nth(place).and_then(|text| text.parse::<usize>().ok());
        match (last, parameters) {
            (b'H', _) => {
                self.line = number(0).unwrap_or(1) - 1;
                self.column = number(1).unwrap_or(1) - 1;
            }
            (b'J', _) => self.cells.iter_mut().for_each(|line| line.fill(' ')),
            (b'h', "?1049") => self.alternate = true,
            (b'l', "?1049") => self.alternate = false,
            (b'h', "?25") => self.hides_cursor = false,
            (b'l', "?25") => self.hides_cursor = true,
            _ => {}
        }
    }
}
