import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { testNeeding } from "../support/skip.ts";
import { binary, type Home, openWorld, SETUP_MS, type World } from "./world.ts";

setDefaultTimeout(60_000);
let world: World;
let home: Home;
let forge: Forge;
beforeAll(async () => {
  world = await openWorld();
  home = await world.home("home").register("owner");
  forge = await startForge(join(world.dir, "forge"));
}, SETUP_MS);
afterAll(async () => {
  await forge.stop();
  await world.close();
});

interface Forge {
  readonly url: string;
  readonly host: string;
  readonly certificate: string;
  /** The pair that it takes. */
  accepted: string;
  stop(): Promise<void>;
}

/** A host of git over HTTPS with basic authentication: git's own http-backend behind it. */
async function startForge(dir: string): Promise<Forge> {
  mkdirSync(join(dir, "repo.git"), { recursive: true });
  const bare = Bun.spawnSync(["git", "init", "--quiet", "--bare", join(dir, "repo.git")]);
  expect(bare.exitCode).toBe(0);
  Bun.spawnSync(["git", "-C", join(dir, "repo.git"), "config", "http.receivepack", "true"]);
  const [cert, key] = [join(dir, "cert.pem"), join(dir, "key.pem")];
  const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
  const made = Bun.spawnSync(
    ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"].concat(
      ["-keyout", key, "-out", cert, "-days", "2"],
      subject,
    ),
  );
  expect(made.exitCode).toBe(0);
  const running: Forge = { url: "", host: "", certificate: cert, accepted: "ada:first", stop: () => server.stop(true) };
  const server = Bun.serve({
    hostname: "localhost",
    port: 0,
    tls: { cert: Bun.file(cert), key: Bun.file(key) },
    fetch: async (request) => {
      const expected = `Basic ${Buffer.from(running.accepted).toString("base64")}`;
      if (request.headers.get("authorization") !== expected) {
        return new Response("no", { status: 401, headers: { "www-authenticate": 'Basic realm="forge"' } });
      }
      return backend(dir, request);
    },
  });
  return Object.assign(running, { url: `https://localhost:${server.port}/repo.git`, host: `localhost:${server.port}` });
}

async function backend(dir: string, request: Request): Promise<Response> {
  const url = new URL(request.url);
  const packed = request.headers.get("content-encoding");
  const child = Bun.spawn(["git", "http-backend"], {
    env: {
      PATH: process.env["PATH"] ?? "",
      GIT_PROJECT_ROOT: dir,
      GIT_HTTP_EXPORT_ALL: "1",
      PATH_INFO: url.pathname,
      QUERY_STRING: url.search.slice(1),
      REQUEST_METHOD: request.method,
      CONTENT_TYPE: request.headers.get("content-type") ?? "",
      REMOTE_USER: "ada",
      GIT_PROTOCOL: request.headers.get("git-protocol") ?? "",
      ...(packed === null ? {} : { HTTP_CONTENT_ENCODING: packed }),
    },
    stdin: new Uint8Array(await request.arrayBuffer()),
    stdout: "pipe",
    stderr: "ignore",
  });
  const out = Buffer.from(await child.stdout.bytes());
  const cut = out.indexOf("\r\n\r\n");
  const headers = new Headers();
  let status = 200;
  for (const line of out.subarray(0, cut).toString().split("\r\n")) {
    const [name = "", value = ""] = line.split(/: (.*)/s, 2);
    if (name === "Status") status = Number.parseInt(value, 10);
    else headers.append(name, value);
  }
  return new Response(out.subarray(cut + 4), { status, headers });
}

async function git(...argv: string[]) {
  const helper = `!${await binary()} git-credential`;
  const settings = ["-c", "credential.helper=", "-c", `credential.helper=${helper}`];
  const child = Bun.spawn(["git", ...settings, "-c", `http.sslCAInfo=${forge.certificate}`, ...argv], {
    env: {
      PATH: process.env["PATH"] ?? "",
      HOME: home.dir,
      KEYHOLD_HOME: home.dir,
      GIT_TERMINAL_PROMPT: "0",
      GIT_CONFIG_NOSYSTEM: "1",
      GIT_AUTHOR_NAME: "ada",
      GIT_AUTHOR_EMAIL: "ada@example.org",
      GIT_COMMITTER_NAME: "ada",
      GIT_COMMITTER_EMAIL: "ada@example.org",
    },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { out, err, code };
}

const revealed = async (name: string): Promise<string> => (await home.ok(["get", name, "--reveal"])).data.value;
const question = (user?: string) => `protocol=https\nhost=${forge.host}\n${user ? `username=${user}\n` : ""}\n`;
const ask = (action: string, stdin: string) => home.run(["git-credential", action], { stdin });

describe("git over HTTPS", () => {
  testNeeding(["git", "openssl"], "pushes with the login that fits, also while the key server is stopped", async () => {
    const work = join(world.dir, "work");
    expect((await git("init", "--quiet", "--initial-branch=main", work)).code).toBe(0);
    writeFileSync(join(work, "file"), "content");
    expect((await git("-C", work, "add", "file")).code).toBe(0);
    expect((await git("-C", work, "commit", "--quiet", "-m", "first")).code).toBe(0);
    expect((await git("-C", work, "push", "--quiet", forge.url, "main")).code).toBe(128);

    await home.ok(["import", fieldsFile("forge/ada", "first")]);
    expect(await git("-C", work, "push", "--quiet", forge.url, "main")).toMatchObject({ code: 0 });

    await world.server.stop();
    writeFileSync(join(work, "file"), "more");
    expect((await git("-C", work, "commit", "--quiet", "-am", "second")).code).toBe(0);
    expect(await git("-C", work, "push", "--quiet", forge.url, "main")).toMatchObject({ code: 0 });
    expect((await git("ls-remote", forge.url)).out).toContain("refs/heads/main");
    await world.restart();
  });
});

/** A native file with one login for the forge. */
function fieldsFile(name: string, value: string): string {
  const file = join(world.dir, `${name.replaceAll("/", "-")}.json`);
  const fields = [
    { name: "user", kind: "text", value: "ada" },
    { name: "url", kind: "url", value: `https://${forge.host}` },
  ];
  const item = { name, type: "login", value, tags: [], createdAt: null, fields, expiresAt: null };
  writeFileSync(file, JSON.stringify({ keyhold: "export", v: 2, items: [item] }));
  return file;
}

describe("the credential helper", () => {
  test("answers with what fits and with nothing else", async () => {
    await home.ok(["import", fieldsFile("forge/ada", "first")]);
    expect((await ask("get", question())).out).toBe("username=ada\npassword=first\n");
    expect((await ask("get", question("ada"))).out).toBe("username=ada\npassword=first\n");
    for (const other of [question("bob"), "protocol=https\nhost=localhost\n\n", "protocol=http\nhost=x\n\n"]) {
      expect(await ask("get", other)).toMatchObject({ code: 0, out: "" });
    }
    expect(await ask("capability", "")).toMatchObject({ code: 0, out: "" });
    expect(await ask("get", "nonsense")).toMatchObject({ code: 2, out: "" });
  });

  test("keeps what worked once, a new password as a version, and erases only its own", async () => {
    const other = "protocol=https\nhost=other.example\nusername=bob\npassword=";
    expect((await ask("store", `${other}one\n\n`)).code).toBe(0);
    expect((await ask("store", `${other}one\n\n`)).code).toBe(0);
    expect((await home.ok(["get", "git/other.example/bob"])).data).toMatchObject({ version: 1, type: "login" });
    expect((await ask("store", `${other}two\n\n`)).code).toBe(0);
    expect(await revealed("git/other.example/bob")).toBe("two");
    expect((await ask("erase", `${other}one\n\n`)).code).toBe(0);
    expect(await revealed("git/other.example/bob")).toBe("two");
    expect((await ask("erase", `${other}two\n\n`)).code).toBe(0);
    await home.fails(3, ["get", "git/other.example/bob"]);

    await home.ok(["import", fieldsFile("forge/ada", "first")]);
    expect((await ask("erase", `protocol=https\nhost=${forge.host}\nusername=ada\npassword=first\n\n`)).code).toBe(0);
    expect(await revealed("forge/ada")).toBe("first");
  });

  test("names several that fit alike instead of choosing, and does not hand out what has expired", async () => {
    const login = async (name: string, user: string, ...more: string[]) => {
      const flags = ["--type", "login", "--set", `user=${user}`, "--set", "url=https://twice.example", ...more];
      await home.ok(["store", name, ...flags], { stdin: "x" });
    };
    await login("twice/a", "a");
    await login("twice/b", "b");
    const both = await ask("get", "protocol=https\nhost=twice.example\n\n");
    expect(both.out).toBe("");
    expect(both.err).toContain("twice/a, twice/b");
    expect((await ask("get", "protocol=https\nhost=twice.example\nusername=b\n\n")).out).toContain("username=b");
    await login("twice/b", "b", "--expires", "2020-01-01");
    const over = await ask("get", "protocol=https\nhost=twice.example\nusername=b\n\n");
    expect(over).toMatchObject({ code: 0, out: "" });
    expect(over.err).toContain("expired");
  });

  test("never asks for the password of a locked vault", async () => {
    await home.run(["lock"]);
    const locked = await ask("get", question());
    expect(locked).toMatchObject({ code: 4, out: "" });
    await home.run(["unlock", ...home.password]);
  });
});
