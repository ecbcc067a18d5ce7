import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { KeyholdClient } from "../../src/client/api.ts";
import { inviteIn } from "../../src/commands/ceremonyjoin.ts";
import { Fault } from "../../src/errors.ts";
import { lastError, onTerminal, run, withDirectory } from "../cli/support.ts";
import { ABORTED, COURSE, dataOf, errorOf, INVITE, infoOf, withHome } from "./ceremonyhome.ts";

setDefaultTimeout(60_000);

/** A client that lets the ceremony go on with each look. */
function participant(course = COURSE): Partial<KeyholdClient> {
  let look = 0;
  const now = () => course[Math.min(look, course.length - 1)] ?? infoOf();
  return {
    ceremonyLook: async () => ({ info: infoOf(), index: 2 }),
    ceremony: async () => now(),
    ceremonyJoin: async () => now(),
    ceremonyAdvance: async () => {
      look++;
      return now();
    },
  };
}

const methodsOf = (calls: readonly { method: string }[]) => calls.map(({ method }) => method);

describe("an invite as people paste it", () => {
  const [one, two] = [INVITE.slice(0, 60), INVITE.slice(60)];
  test.each([
    ["with its command", `keyhold ceremony join ${INVITE}\n`],
    ["wrapped", `keyhold ceremony join ${one}\r\n  ${two}`],
    ["quoted in a mail", `Hi!\n> keyhold ceremony join\n> ${one}\n> ${two}\n\nBye, Ann`],
    ["with a signature below", `${INVITE}\n\n-- \nann`],
    ["in quotation marks", `run: "keyhold ceremony join ${INVITE}".`],
    ["broken by =", `${one}=\n${two}`],
  ])("%s", (_, text) => expect(inviteIn(text)).toBe(INVITE));

  test.each([one, INVITE.slice(0, -1), `${one}A${two}`, "hello", ""])("is refused where it is none: %#", (text) =>
    expect(() => inviteIn(text)).toThrow("no whole invite"),
  );
});

describe.concurrent("ceremony join for scripts", () => {
  test("commits by the invite, waits, and says what came of it", async () => {
    await withHome(participant(), async (home) => {
      const ran = await home.run(["ceremony", "join", INVITE, "--json"]);
      expect([ran.code, ran.err]).toEqual([0, ""]);
      expect(dataOf(ran)).toEqual(COURSE.at(-1));
      expect(home.calls[1]).toEqual({
        method: "ceremonyJoin",
        input: { invite: INVITE, ceremony: null, function: "hkdf-sha256", mixed: [], suite: "hpke" },
      });
      expect(methodsOf(home.calls).slice(2)).toEqual(Array(3).fill("ceremonyAdvance"));
    });
  });

  test("for people it says each change once, and then what to believe", async () => {
    await withHome(participant(), async (home) => {
      const { code, out, err } = await home.run(["ceremony", "join", INVITE]);
      expect(code).toBe(0);
      expect(err).toContain("one two three four five six");
      expect(err).toContain("After an interruption: keyhold ceremony join --ceremony backup-key");
      for (const line of ["ben has committed", "ann has committed", "ben has revealed", "ann has revealed"]) {
        expect([line, err.split(line).length - 1]).toEqual([line, 1]);
      }
      expect(out).toContain("Yours is one of 2 contributions");
      expect(out).toContain("You must still trust the server");
      expect(out).toContain("keyhold ceremony verify backup-key.ceremony");
      expect(out + err).not.toContain("\u001b");
    });
  });

  test("takes the invite from a file or stdin, with line breaks where a mail put them", async () => {
    await withHome(participant(), async (home) => {
      const broken = `keyhold ceremony join ${INVITE.slice(0, 60)}\n  ${INVITE.slice(60)}\n`;
      const file = join(home.dir, "invite");
      writeFileSync(file, broken);
      const ends = [
        await home.run(["ceremony", "join", "--invite-file", file, "--no-wait", "--json"]),
        await home.run(["ceremony", "join", "--no-wait", "--json"], new TextEncoder().encode(broken)),
        await home.run(
          ["ceremony", "join", "--invite-file", "-", "--no-wait", "--json"],
          new TextEncoder().encode(INVITE),
        ),
      ];
      expect(ends.map(({ code }) => code)).toEqual([9, 9, 9]);
      const looked = home.calls.filter(({ method }) => method === "ceremonyLook");
      expect(looked.map(({ input }) => input)).toEqual(Array(3).fill({ invite: INVITE }));
    });
  });

  test("--no-wait commits and exits 9; the same command goes on without committing again", async () => {
    const own = (course = COURSE): Partial<KeyholdClient> => ({
      ...participant(course),
      ceremonyLook: async () => ({ info: COURSE[0] ?? infoOf(), index: 2 }),
    });
    await withHome(participant(), async (home) => {
      const ran = await home.run(["ceremony", "join", INVITE, "--no-wait"]);
      expect([ran.code, ran.out.includes("To go on: keyhold ceremony join --ceremony backup-key")]).toEqual([9, true]);
      expect(methodsOf(home.calls)).toEqual(["ceremonyLook", "ceremonyJoin"]);
    });
    await withHome(own(), async (home) => {
      const ran = await home.run(["ceremony", "join", INVITE, "--no-wait", "--json"]);
      expect([ran.code, methodsOf(home.calls)]).toEqual([9, ["ceremonyLook", "ceremonyAdvance"]]);
    });
    await withHome(own(), async (home) => {
      const ran = await home.run(["ceremony", "join", "--ceremony", "backup-key", "--json"]);
      expect([ran.code, methodsOf(home.calls).includes("ceremonyJoin")]).toEqual([0, false]);
    });
  });

  test("files are mixed in, and RSA is used where it is asked for", async () => {
    await withHome(participant(), async (home) => {
      const file = join(home.dir, "noise");
      writeFileSync(file, "noise");
      const argv = ["--mix-file", file, "--mix", "file", "--function", "argon2id", "--rsa", "--no-wait", "--json"];
      expect((await home.run(["ceremony", "join", INVITE, ...argv])).code).toBe(9);
      const bytes = new TextEncoder().encode("noise");
      expect(home.calls[1]?.input).toMatchObject({
        function: "argon2id",
        suite: "rsa-oaep",
        mixed: [{ kind: "file", bytes }],
      });
    });
  });

  test("an aborted one names who is to blame, and that nothing was made", async () => {
    await withHome(participant([COURSE[0] ?? infoOf(), ABORTED]), async (home) => {
      const ran = await home.run(["ceremony", "join", INVITE, "--json"]);
      expect([ran.code, errorOf(ran).culprits, ran.out]).toEqual([11, ["ann"], ""]);
      expect(errorOf(ran).message).toContain("not all who had committed revealed in time");
      expect(errorOf(ran).hint).toContain("--again 4f4f4f4f4f4f4f4f");
    });
    const lied = { ...ABORTED, aborted: { reason: "lied" as const, culprits: ["ann"] } };
    await withHome(participant([COURSE[0] ?? infoOf(), lied]), async (home) => {
      expect((await home.run(["ceremony", "join", INVITE, "--json"])).code).toBe(8);
    });
  });

  test("--timeout ends with exit 11 and says how to go on", async () => {
    await withHome(participant([COURSE[0] ?? infoOf()]), async (home) => {
      const ran = await home.run(["ceremony", "join", INVITE, "--timeout", "1500ms", "--json"]);
      expect([ran.code, errorOf(ran).code]).toEqual([11, "timed_out"]);
      expect(errorOf(ran).hint).toBe("keyhold ceremony join --ceremony backup-key goes on");
    });
  });

  test("a server that is away for a while is waited for; another fault ends it", async () => {
    let tries = 0;
    const away = {
      ...participant(),
      ceremonyAdvance: async () => {
        tries++;
        if (tries === 1) throw new Fault("unreachable", "the server is away");
        return COURSE.at(-1) ?? infoOf();
      },
    };
    await withHome(away, async (home) => {
      const ran = await home.run(["ceremony", "join", INVITE]);
      expect([ran.code, ran.err.includes("! the server is away: trying again, for")]).toEqual([0, true]);
      expect(ran.err).toContain("the server is back");
    });
    const bad = {
      ...participant(),
      ceremonyAdvance: async () => {
        throw new Fault("integrity", "the transcript forks");
      },
    };
    await withHome(bad, async (home) => {
      expect((await home.run(["ceremony", "join", INVITE, "--json"])).code).toBe(8);
    });
  });

  test("a vault that is locked meanwhile ends it, with the command that goes on: by the id, where that was given", async () => {
    const locked = {
      ...participant(),
      ceremony: async () => COURSE[0] ?? infoOf(),
      ceremonyAdvance: async () => {
        throw new Fault("locked", "the vault is locked");
      },
    };
    await withHome(locked, async (home) => {
      for (const [given, named] of [
        [[INVITE], "backup-key"],
        [["--ceremony", "4f4f4f4f"], "4f4f4f4f"],
      ] as const) {
        const ran = await home.run(["ceremony", "join", ...given]);
        expect([ran.code, ran.out]).toEqual([4, ""]);
        expect(ran.err).toContain(`Fix: keyhold unlock; then keyhold ceremony join --ceremony ${named} goes on`);
      }
    });
  });

  test("SIGINT and SIGTERM while it waits say how to go on", async () => {
    await withHome(participant([COURSE[0] ?? infoOf()]), async (home) => {
      for (const [signal, code] of [
        ["SIGINT", 130],
        ["SIGTERM", 143],
      ] as const) {
        const child = Bun.spawn(
          [process.execPath, join(import.meta.dir, "../../src/main.ts"), "ceremony", "join", INVITE],
          {
            env: { ...process.env, ...home.env, CI: "1" },
            stdin: "ignore",
            stdout: "ignore",
            stderr: "pipe",
            detached: true,
          },
        );
        let err = "";
        for await (const piece of child.stderr) {
          err += new TextDecoder().decode(piece);
          if (err.includes("Committing: 1 of 2")) child.kill(signal);
        }
        expect([await child.exited, err.includes("Fix: keyhold ceremony join --ceremony backup-key goes on")]).toEqual([
          code,
          true,
        ]);
      }
    });
  });

  test("a seat that cannot be taken is told before anything is asked", async () => {
    const used = infoOf({
      seats: [COURSE[1]?.seats[0], { ...COURSE[1]?.seats[1], own: false }] as never,
      status: "commit",
    });
    for (const [info, message] of [
      [used, "this invite was used already"],
      [infoOf({ status: "reveal" }), "it is too late to join"],
    ] as const) {
      await withHome({ ...participant(), ceremonyLook: async () => ({ info, index: 2 }) }, async (home) => {
        const ran = await home.run(["ceremony", "join", INVITE, "--json"]);
        expect([ran.code, errorOf(ran).message, methodsOf(home.calls)]).toEqual([6, message, ["ceremonyLook"]]);
      });
    }
    await withHome({ ...participant(), ceremony: async () => infoOf() }, async (home) => {
      const ran = await home.run(["ceremony", "join", "--ceremony", "backup-key", "--json"]);
      expect([ran.code, errorOf(ran).message]).toEqual([3, "there is no seat for you at backup-key"]);
    });
  });

  test.each([
    [["--ceremony", "x", INVITE], "usage"],
    [["--invite-file", "f", INVITE], "usage"],
    [["--mix", "coffee", INVITE], "usage"],
    [["--mix", "none", "--mix", "dice", INVITE], "usage"],
    [["--function", "md5", INVITE], "usage"],
    [[INVITE.slice(0, -4)], "bad_input"],
    [[`${INVITE.slice(0, -4)}AAAA`], "bad_input"],
    [["--timeout", "soon", INVITE], "usage"],
    [[], "input_needed"],
    [["--mix", "dice", INVITE], "input_needed"],
  ])("%j exits 2", async (argv, code) => {
    await withHome(participant(), async (home) => {
      const ran = await home.run(["ceremony", "join", ...argv, "--json"]);
      expect([ran.code, errorOf(ran).code, ran.out]).toEqual([2, code, ""]);
      // what was not given is not spoken of
      for (const flag of ["--ceremony", "--invite-file"]) {
        if (code === "usage" && !argv.some((word) => word === flag)) expect(errorOf(ran).message).not.toContain(flag);
      }
      expect(methodsOf(home.calls)).not.toContain("ceremonyJoin");
    });
  });

  test("without a vault the server is asked first: for an invite that leads nowhere, or without one, none is made", async () => {
    await withDirectory(async (dir) => {
      const password = join(dir, "pw");
      writeFileSync(password, "correct horse battery", { mode: 0o600 });
      const given = ["--json", "--password-file", password];
      const env = { KEYHOLD_HOME: dir };
      const ran = await run(["ceremony", "join", INVITE, ...given], { env });
      expect([ran.code, lastError(ran).error["code"]]).toEqual([7, "unreachable"]);
      const none = await run(["ceremony", "join", "--ceremony", "backup-key", ...given], { env });
      expect([none.code, lastError(none).error["code"]]).toEqual([4, "not_logged_in"]);
      expect(existsSync(join(dir, "config", "profiles", "default.json"))).toBe(false);
      expect(existsSync(join(dir, "data", "vaults"))).toBe(false);
    });
  });
});

describe.concurrent("ceremony join at a terminal", () => {
  const joining = `$KEYHOLD ceremony join ${INVITE}`;

  test("explains, asks, commits, draws the roster, and says what to believe", async () => {
    await withHome(participant(), async (home) => {
      const { code, shown, out } = await onTerminal(
        joining,
        [
          { expect: "Does the organiser see the same six words?", type: "\r" },
          { expect: "Your function", type: "\r" },
          { expect: "Add something of your own?", type: "\u001b[B\u001b[B\r" },
          { expect: "Throws of a die", type: "2635 1442 3515\r" },
          { expect: "12 throws: 31 bits", type: "6x\r" },
          { expect: "only digits from 1 to 6", type: "\r" },
          { expect: "Add something more?", type: "\r" },
          { expect: "Commit now?", type: "\r" },
          { expect: "Done: the key is made" },
        ],
        home.env,
      );
      expect(code).toBe(0);
      for (const text of [
        'You are invited, as "ben"',
        "seal our backups",
        "What the server learns",
        "draws 32 bytes by chance",
        "are enough alone",
        "one two three four five six",
      ])
        expect(Bun.stripANSI(shown).replaceAll(/\s*\r?\n[│ ]*/g, " ")).toContain(text);
      expect(shown).not.toContain("2635");
      expect(shown).toContain("\u001b[J");
      expect(out).toContain("Yours is one of 2 contributions");
      const joined = home.calls.find(({ method }) => method === "ceremonyJoin")?.input as {
        mixed: { kind: string; bytes: Uint8Array }[];
      };
      expect(joined.mixed.map(({ kind, bytes }) => [kind, new TextDecoder().decode(bytes)])).toEqual([
        ["dice", "263514423515"],
      ]);
    });
  });

  test("words that differ end it, Esc goes back, and Ctrl-C says that nothing was done", async () => {
    await withHome(participant(), async (home) => {
      const words = "Does the organiser see the same six words?";
      const differ = await onTerminal(joining, [{ expect: words, type: "\u001b[B\u001b[B\r" }], home.env);
      expect([differ.code, differ.shown.includes("somebody may stand between")]).toEqual([5, true]);
      const back = await onTerminal(
        joining,
        [
          { expect: words, type: "\r" },
          { expect: "Your function", type: "\u001b" },
          { expect: words, type: "\u0003" },
        ],
        home.env,
      );
      expect([back.code, back.shown.includes("nothing was done")]).toEqual([130, true]);
      const no = await onTerminal(
        joining,
        [
          { expect: words, type: "\r" },
          { expect: "Your function", type: "\r" },
          { expect: "Add something", type: "\r" },
          { expect: "Commit now?", type: "\u001b[B\r" },
        ],
        home.env,
      );
      expect([no.code, no.shown.includes("nothing was done")]).toEqual([130, true]);
      expect(methodsOf(home.calls)).not.toContain("ceremonyJoin");
    });
  });

  test("a vault that is locked meanwhile is waited for, until it is unlocked", async () => {
    let looks = 0;
    const locked = {
      ...participant(),
      ceremonyAdvance: async () => {
        looks++;
        if (looks < 3) throw new Fault("locked", "the vault is locked");
        return COURSE.at(-1) ?? infoOf();
      },
    };
    await withHome(locked, async (home) => {
      const { code, shown, out } = await onTerminal(
        `${joining} --yes`,
        [{ expect: "! the vault is locked: this waits until it is unlocked" }, { expect: "Done: the key is made" }],
        home.env,
      );
      expect([code, shown.includes("in another window: keyhold unlock")]).toEqual([0, true]);
      expect(out).toContain("Yours is one of 2 contributions");
    });
  });

  test("Ctrl-C while it waits says how to go on", async () => {
    await withHome(participant([COURSE[0] ?? infoOf()]), async (home) => {
      const { code, shown } = await onTerminal(
        `${joining} --yes`,
        [{ expect: "ben  has committed", type: "\u0003" }],
        home.env,
      );
      expect([code, shown.includes("keyhold ceremony join --ceremony backup-key goes on")]).toEqual([130, true]);
    });
  });
});
