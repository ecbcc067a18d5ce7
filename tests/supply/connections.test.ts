import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { binary, type Home, openWorld, SETUP_MS, serve, type World } from "../binary/world.ts";
import { testNeeding, testUnless } from "../support/skip.ts";
import { destinations, finishedTrace, TRACED } from "./sockets.ts";

describe("under strace", () => {
  let world: World;
  let home: Home;
  let folder = "";

  beforeAll(async () => {
    world = await openWorld({ server: false });
    home = world.home("alice");
    folder = mkdtempSync(join(tmpdir(), "keyhold-strace-"));
    chmodSync(folder, 0o700);
  }, SETUP_MS);
  afterAll(async () => {
    await world.close();
    rmSync(folder, { recursive: true, force: true });
  });

  /**
   * A program that runs `program`, traced with all its children into files: as the same process, or, with `buffered`,
   * so that its output ends when it ends though the tracer stays with an agent.
   */
  function traced(name: string, program: string, buffered: boolean) {
    const [script, traces] = [join(folder, name), join(folder, `${name}.traces`)];
    mkdirSync(traces);
    const strace = `strace -D -f -q -s 128 -e trace=${TRACED} -e signal=none -o "${traces}/$$" "${program}" "$@"`;
    const out = `"${folder}/$$.out" 2>"${folder}/$$.err"`;
    const shown = `cat "${folder}/$$.out"; cat "${folder}/$$.err" >&2`;
    const body = buffered ? `${strace} >${out}\ncode=$?\n${shown}\nexit $code` : `exec ${strace}`;
    writeFileSync(script, `#!/bin/sh\n${body}\n`, { mode: 0o700 });
    return {
      program: script,
      traces: () => Promise.all(readdirSync(traces).map((file) => finishedTrace(join(traces, file)))),
    };
  }

  const asRoot = process.getuid?.() === 0 ? undefined : "needs root, who may look into server and agent";
  testUnless(
    Bun.which("strace") === null ? "needs strace" : asRoot,
    "the client connects to the given server and its own agent, the server to nobody",
    async () => {
      const [client, server] = [traced("client", await binary(), true), traced("server", await binary(), false)];
      const dir = join(world.dir, "server");
      mkdirSync(dir, { mode: 0o700 });
      world.server = await serve(dir, ["--listen", "127.0.0.1:0"], { program: server.program });
      const { url, pin, port } = world.server;
      const run = (...argv: string[]) => home.ok(argv, { program: client.program });
      const account = ["--server", url, "--pin", pin, "--account", "alice"];
      await run("register", ...account, ...home.password, "--kdf", "test");
      await run("login", ...home.password, "--kdf", "test");
      await run("generate", "db");
      await run("get", "db", "--reveal");
      await run("list");
      await run("audit", "verify");
      await run("status");
      await run("logout");
      await world.server.stop();

      const seen = (await client.traces()).map(destinations);
      expect(seen).toHaveLength(8);
      const own = (to: string) => to.startsWith(`unix ${home.dir}/`) || /^unix .*agent-[a-z]+\.sock$/.test(to);
      const all = new Set(seen.flat());
      expect([...all].filter((to) => !own(to))).toEqual([`inet 127.0.0.1:${port}`]);
      expect([...all].filter(own).length).toBeGreaterThan(0);
      expect((await server.traces()).map(destinations)).toEqual([[]]);
    },
    SETUP_MS,
  );

  testNeeding("strace", "a program that connects elsewhere is seen", async () => {
    const listener = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response("") });
    try {
      const bun = traced("other", process.execPath, false);
      const child = Bun.spawn([bun.program, "-e", `await fetch(${JSON.stringify(listener.url.href)})`], {
        stdin: "ignore",
        stdout: "ignore",
        stderr: "inherit",
      });
      expect(await child.exited).toBe(0);
      expect((await bun.traces()).flatMap(destinations)).toContain(`inet 127.0.0.1:${listener.port}`);
    } finally {
      await listener.stop(true);
    }
  });
});

test("destinations are read from what strace writes, and what cannot be read is no silence", () => {
  const trace = `12 connect(3, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("192.0.2.1")}, 16) = 0
12 connect(3, {sa_family=AF_INET6, sin6_port=htons(53), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "2001:db8::1", &sin6_addr), sin6_scope_id=0}, 28 <unfinished ...>
13 <... connect resumed>) = -1 EINPROGRESS (Operation now in progress)
13 connect(4, {sa_family=AF_UNIX, sun_path="/run/nscd/socket"}, 110) = -1 ENOENT (No such file or directory)
13 sendto(5, "x", 1, MSG_NOSIGNAL, NULL, 0) = 1
13 sendto(5, "x", 1, 0, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("192.0.2.2")}, 16) = 1
13 sendto(5, [{nlmsg_len=20}], 20, 0, {sa_family=AF_NETLINK, nl_pid=0, nl_groups=00000000}, 12) = 20
14 sendmsg(6, {msg_name={sa_family=AF_INET, sin_port=htons(9), sin_addr=inet_addr("192.0.2.3")}, msg_namelen=16}, 0) = 1
14 connect(7, 0x7ffd, 16) = 0
14 io_uring_setup(4, 0x1) = 3`;
  expect(destinations(trace)).toEqual([
    "inet 192.0.2.1:443",
    "inet 192.0.2.2:53",
    "inet 192.0.2.3:9",
    "inet [2001:db8::1]:53",
    "unix /run/nscd/socket",
    "unreadable connect(7, 0x7ffd, 16) = 0",
    "unreadable io_uring_setup(4, 0x1) = 3",
  ]);
});
