import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { FIXTURE, lastError, onTerminal, run } from "./support.ts";

const hex = (text: string) => Buffer.from(text).toString("hex");
const fixture = (argv: readonly string[], options = {}) => run(argv, { script: FIXTURE, ...options });
/** Runs the fixture, then shows whether the terminal echoes and reads lines again. */
const restored = "; echo code $? >&2; stty -a </dev/tty >&2";
const sane = /(?<!-)icanon.*\s(?<!-)echo\s/s;

describe("at a terminal", () => {
  test("a missing word is asked for, and stdout holds the data alone", async () => {
    const ran = await onTerminal("$FIXTURE echo --json", [{ expect: "Which name", type: "db/prod\r" }]);
    expect(ran.code).toBe(0);
    expect(JSON.parse(ran.out).data.args.name).toBe("db/prod");
  });

  test("missing flags are asked for one after another; an empty answer is none", async () => {
    const ran = await onTerminal("$FIXTURE login --json", [
      { expect: "Which server", type: "\r" },
      { expect: "an answer is needed", type: "https://localhost\r" },
      { expect: "the mode", type: "\u001b[B\r" },
    ]);
    expect(JSON.parse(ran.out).data).toEqual({ server: "https://localhost", mode: "closed" });
    const nobody = await fixture(["login", "--json"]);
    expect(nobody.code).toBe(2);
    expect(lastError(nobody).error).toMatchObject({ code: "input_needed", hint: "--server URL" });
  });

  test("a password is asked for without an echo of it, whatever stdin is", async () => {
    for (const stdin of ["", "</dev/null", "<&-", "<<<input"]) {
      const ran = await onTerminal(`$FIXTURE password --json ${stdin} ${restored}`, [
        { expect: "Password", type: "hunter22é\r" },
      ]);
      expect(JSON.parse(ran.out).data.hex).toBe(hex("hunter22é"));
      expect(ran.shown).not.toContain("hunter22");
      expect(ran.shown).not.toMatch(/[•▪*]{2}/);
      expect(ran.shown).toMatch(sane);
    }
  });

  test("a new password is asked for twice, and after a slip again: nothing that is typed then goes to the shell", async () => {
    const chosen = "correct horse battery";
    const ran = await onTerminal(`$FIXTURE choose --json ${restored}`, [
      { expect: "Password", type: "short\r" },
      { expect: /at least 8 bytes: choose a longer one.*Password/s, type: `${"long".repeat(300)}\r` },
      { expect: /at most 1024 bytes.*Password/s, type: `${chosen}\r` },
      { expect: "Again", type: "correct house\r" },
      { expect: /the two differ: try again.*Password/s, type: `${chosen}\r` },
      { expect: "Again", type: `${chosen}\r` },
      { expect: "code 0" },
    ]);
    expect(JSON.parse(ran.out).data.hex).toBe(hex(chosen));
    for (const typed of ["short", "longlong", chosen, "correct house"]) expect(ran.shown).not.toContain(typed);
    expect(ran.shown).toMatch(sane);
  });

  test("a confirmation: yes acts, no and Enter do not", async () => {
    expect((await onTerminal("$FIXTURE remove", [{ expect: "Remove", type: "y" }])).out).toBe("removed\n");
    for (const type of ["n", "\r"]) {
      const ran = await onTerminal("$FIXTURE remove", [{ expect: "Remove", type }]);
      expect([ran.code, ran.out]).toEqual([130, ""]);
    }
  });

  test("what is typed between two secret questions is not echoed", async () => {
    const program = `${process.execPath} ${join(import.meta.dir, "unseen.ts")}`;
    const steps = [
      { expect: "First", type: "one\r" },
      { expect: "working", type: "typed ahead" },
      { expect: "the work is done" },
    ];
    const ran = await onTerminal(`${program} ${restored}`, steps);
    expect([ran.shown.includes("typed ahead"), sane.test(ran.shown)]).toEqual([false, true]);
    // the same without it: the terminal would show it
    expect((await onTerminal(`${program} seen`, steps)).shown).toContain("typed ahead");
  });

  for (const [what, key] of [
    ["Ctrl-C", "\u0003"],
    ["Escape", "\u001b"],
    ["Ctrl-D", "\u0004"],
    ["Ctrl-D after half an answer", "half\u0004"],
  ] as const) {
    test(`${what} at a prompt: exit 130 and a terminal as before`, async () => {
      const ran = await onTerminal(`$FIXTURE password ${restored}`, [{ expect: "Password", type: key }]);
      expect(ran.out).toBe("");
      expect(ran.shown).toContain("code 130");
      expect(ran.shown).toMatch(sane);
      expect(ran.shown.lastIndexOf("\u001b[?25h")).toBeGreaterThan(ran.shown.lastIndexOf("\u001b[?25l"));
    });
  }

  for (const [signal, code] of [
    ["SIGTERM", 143],
    ["SIGINT", 130],
    ["SIGHUP", 129],
  ] as const) {
    test(`${signal} at a prompt: exit ${code} and a terminal as before`, async () => {
      const ran = await onTerminal(`sh -c 'echo pid $$. >&2; exec '"$FIXTURE"' password' ${restored}`, [
        { expect: "Password", act: (pid) => process.kill(pid, signal) },
      ]);
      expect(ran.shown).toContain(`code ${code}`);
      expect(ran.shown).toMatch(sane);
      expect(ran.shown.lastIndexOf("\u001b[?25h")).toBeGreaterThan(ran.shown.lastIndexOf("\u001b[?25l"));
    });
  }

  test("work shows that it goes on; Ctrl-C ends it with 130, SIGTERM with 143", async () => {
    const ctrlC = await onTerminal(`$FIXTURE slow ${restored}`, [{ expect: "Working", type: "\u0003" }]);
    expect(ctrlC.shown).toContain("interrupted, exit 130");
    const term = await onTerminal(`sh -c 'echo pid $$. >&2; exec '"$FIXTURE"' slow' ${restored}`, [
      { expect: "Working", act: (pid) => process.kill(pid, "SIGTERM") },
    ]);
    expect(term.shown).toContain("code 143");
  });

  test("--quiet, --json and TERM=dumb show no progress", async () => {
    for (const [flags, env] of [
      ["--quiet", {}],
      ["--json", {}],
      ["", { TERM: "dumb" }],
    ] as const) {
      const ran = await onTerminal(`timeout -s TERM 0.6 $FIXTURE slow ${flags}`, [], env);
      expect(ran.shown).toContain("started");
      expect(ran.shown).not.toContain("Working");
    }
  });

  test("--no-input, KEYHOLD_NO_INPUT and CI forbid questions even here", async () => {
    for (const [flags, env] of [
      ["--no-input", {}],
      ["", { KEYHOLD_NO_INPUT: "1" }],
      ["", { CI: "1" }],
    ] as const) {
      const ran = await onTerminal(`$FIXTURE password ${flags}`, [], env);
      expect(ran.code).toBe(4);
      expect(ran.shown).toContain("password_needed, exit 4");
    }
    expect((await onTerminal("$FIXTURE echo --json", [{ expect: "Which", type: "x\r" }], { CI: "" })).code).toBe(0);
  });
});

describe("without a terminal", () => {
  const stdins = { closed: "ignore", "an open pipe": "pipe", "a file": new Uint8Array([0x61]) } as const;
  for (const [what, stdin] of Object.entries(stdins)) {
    test(`nothing hangs when stdin is ${what}: the flag that helps is named`, async () => {
      const password = await fixture(["password", "--json"], { stdin });
      expect(password.code).toBe(4);
      expect(lastError(password).error).toMatchObject({ code: "password_needed" });
      expect(lastError(password).error["hint"]).toContain("--password-file");
      const name = await fixture(["echo", "--json"], { stdin });
      expect([name.code, lastError(name).error["code"]]).toEqual([2, "input_needed"]);
      const confirm = await fixture(["remove", "--json"], { stdin });
      expect([confirm.code, confirm.out]).toEqual([2, ""]);
      expect(lastError(confirm).error["hint"]).toContain("--yes");
      expect((await fixture(["remove", "--yes"], { stdin })).out).toBe("removed\n");
    });
  }

  test("work is silent and a service drains when told to", async () => {
    for (const [signal, code, out] of [
      ["SIGTERM", 0, "drained after SIGTERM\n"],
      ["SIGINT", 0, "drained after SIGINT\n"],
    ] as const) {
      const child = Bun.spawn([process.execPath, FIXTURE, "serve"], {
        stdin: "ignore",
        stdout: "pipe",
        stderr: "pipe",
      });
      await child.stderr.getReader().read();
      child.kill(signal);
      expect([await child.stdout.text(), await child.exited]).toEqual([out, code]);
    }
    const slow = Bun.spawn([process.execPath, FIXTURE, "slow"], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
    const reader = slow.stderr.getReader();
    expect(new TextDecoder().decode((await reader.read()).value)).toBe("! started\n");
    slow.kill("SIGINT");
    expect(await slow.exited).toBe(130);
    // a stream that was read from gives no text any more
    let rest = "";
    for (let part = await reader.read(); !part.done; part = await reader.read())
      rest += new TextDecoder().decode(part.value);
    expect(rest).toContain("interrupted, exit 130");
  });
});
