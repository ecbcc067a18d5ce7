import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, renameSync, statSync } from "node:fs";
import { join } from "node:path";
import { testNeeding } from "../support/skip.ts";
import { errorOf, openWorld, SETUP_MS, serve, serverFlags, type World } from "./world.ts";

setDefaultTimeout(60_000);
let world: World;
beforeAll(async () => {
  world = await openWorld();
}, SETUP_MS);
afterAll(() => world.close());

test("what cannot be served is refused with the reason, and nothing is left running", async () => {
  const operator = world.home("refused");
  const file = world.file("a-file", "x");
  const cases: [string[], number, RegExp][] = [
    [["--listen", `127.0.0.1:${world.server.port}`], 6, /in use/],
    [["--listen", "nonsense"], 2, /HOST:PORT/],
    [["--listen", "127.0.0.1:99999"], 2, /HOST:PORT/],
    [["--listen", "127.0.0.1:0", "--dir", file], 1, /directory/],
    [["--listen", "127.0.0.1:0", "--database", "mysql://x"], 2, /database/],
    [["--listen", "127.0.0.1:0", "--tls-cert", file], 2, /go together/],
    [["--listen", "127.0.0.1:0", "--tls-cert", file, "--tls-key", file], 2, /PEM/],
    [["--listen", "127.0.0.1:0", "--registration", "maybe"], 2, /registration/],
  ];
  for (const [argv, code, why] of cases) {
    const ran = await operator.run(["serve", ...argv, "--json"]);
    expect([argv, ran.code, ran.out]).toEqual([argv, code, ""]);
    expect([argv, JSON.stringify(errorOf(ran))]).toEqual([argv, expect.stringMatching(why)]);
  }
});

test("the directory is the owner's alone, and a stop leaves neither socket nor half-written log", async () => {
  const dir = world.home("stopped").dir;
  const server = await serve(dir);
  expect(statSync(join(dir, "control.sock")).mode & 0o777).toBe(0o600);
  const modes = (path: string): [string, number][] => {
    const mode = statSync(path).mode & 0o777;
    return statSync(path).isDirectory()
      ? [[path, mode], ...readdirSync(path).flatMap((name) => modes(join(path, name)))]
      : [[path, mode]];
  };
  expect(modes(dir).filter(([, mode]) => (mode & 0o077) !== 0)).toEqual([]);
  expect(await server.stop()).toBe(0);
  expect(existsSync(join(dir, "control.sock"))).toBe(false);
  const lines = server.log().trimEnd().split("\n");
  expect(lines.length).toBeGreaterThan(0);
  for (const line of lines) expect(Object.keys(JSON.parse(line))).toContain("event");
});

test("a server that takes over the directory has the same identity; one without its keys is refused", async () => {
  const dir = world.home("taken").dir;
  const first = await serve(dir);
  await first.stop("SIGKILL");
  const second = await serve(dir);
  expect(second.pin).toBe(first.pin);
  await second.stop();
  renameSync(join(dir, "keys"), world.file("taken-keys"));
  const ran = await world.home("taken").run(["serve", "--dir", dir, "--listen", "127.0.0.1:0", "--json"]);
  expect([ran.code === 0, ran.out]).toEqual([false, ""]);
  expect(errorOf(ran).code).toMatch(/corrupt|integrity|conflict|not_found/);
});

test("health is told without a name of anything", async () => {
  const tls = { rejectUnauthorized: false };
  for (const path of ["/healthz", "/readyz"]) {
    const reply = await fetch(`${world.server.url}${path}`, { tls });
    expect([path, reply.status, (await reply.text()).length < 64]).toEqual([path, 200, true]);
  }
  const none = await fetch(`${world.server.url}/etc/passwd`, { tls });
  expect(none.status).toBe(404);
});

testNeeding("openssl", "a certificate of one's own: with its authority and the pin, and not without", async () => {
  const dir = world.file("pki");
  mkdirSync(dir);
  const openssl = async (...argv: string[]) => {
    const child = Bun.spawn(["openssl", ...argv], { cwd: dir, stdin: "ignore", stdout: "ignore", stderr: "pipe" });
    const err = await child.stderr.text();
    expect([argv[0], await child.exited, err]).toEqual([argv[0], 0, err]);
  };
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  await openssl(
    "req",
    "-x509",
    ...curve,
    "-keyout",
    "ca.key",
    "-out",
    "ca.pem",
    "-days",
    "2",
    "-subj",
    "/CN=Test authority",
  );
  const leaf = async (name: string, san: string) => {
    const extensions = ["-addext", `subjectAltName=${san}`, "-addext", "basicConstraints=critical,CA:FALSE"];
    const signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2", "-subj", `/CN=${name}`];
    await openssl("req", "-x509", ...curve, "-keyout", `${name}.key`, "-out", `${name}.pem`, ...signed, ...extensions);
    return ["--tls-cert", join(dir, `${name}.pem`), "--tls-key", join(dir, `${name}.key`)];
  };
  const authority = ["--tls-ca", join(dir, "ca.pem")];
  const good = await serve(world.home("pki-good").dir, [
    "--listen",
    "127.0.0.1:0",
    ...(await leaf("good", "IP:127.0.0.1")),
  ]);
  const home = world.home("pki-client");
  const flags = [...home.password, "--kdf", "test"];
  const to = (server: { url: string; pin: string }) => ["register", ...serverFlags(server, "ada"), ...flags];
  expect((await home.fails(7, to(good))).code).toMatch(/tls_refused|pin_mismatch/);
  const wrongPin = { url: good.url, pin: world.server.pin };
  expect((await home.fails(7, [...to(wrongPin), ...authority])).code).toBe("pin_mismatch");
  await home.ok([...to(good), ...authority]);
  await home.login();
  await home.ok(["store", "x"], { stdin: "y" });
  expect((await home.run(["read", "x", "--fresh"])).out).toBe("y");
  await good.stop();

  const foreign = await serve(world.home("pki-bad").dir, [
    "--listen",
    "127.0.0.1:0",
    ...(await leaf("bad", "DNS:elsewhere.example")),
  ]);
  const stranger = world.home("pki-stranger");
  const refused = await stranger.fails(7, [
    "register",
    ...serverFlags(foreign, "a"),
    ...stranger.password,
    "--kdf",
    "test",
    ...authority,
  ]);
  expect(refused.code).toMatch(/tls_refused|pin_mismatch/);
  await foreign.stop();
});
