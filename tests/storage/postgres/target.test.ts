import { afterAll, expect, test } from "bun:test";
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { databaseFile } from "../../../src/storage/open.ts";
import { holdsPassword, isPostgres, targetOf } from "../../../src/storage/postgres/target.ts";
import { temporaryDirectories } from "../temporary.ts";

const directories = temporaryDirectories();
afterAll(directories.clean);

const NOWHERE = { HOME: "/nonexistent" };

function refusal(spec: string, env: Record<string, string> = NOWHERE): { code: string; message: string } {
  try {
    targetOf(spec, env);
  } catch (error) {
    return error as { code: string; message: string };
  }
  throw new Error(`${spec} was taken`);
}

test("an address gives host, port, user, database and password", () => {
  const { options, shown } = targetOf("postgres://ann:p%40ss%2Fword@db.example:6000/keys", NOWHERE);
  expect(options).toMatchObject({
    hostname: "db.example",
    port: 6_000,
    username: "ann",
    password: "p@ss/word",
    database: "keys",
  });
  expect(shown).toBe("postgres://ann@db.example:6000/keys");
  const short = targetOf("postgresql://ann@[::1]", NOWHERE);
  expect(short.options).toMatchObject({ hostname: "::1", port: 5_432, database: "ann", password: "" });
});

test("a Unix socket is named by its directory", () => {
  const { options, shown } = targetOf("postgres:///keys?host=/run/postgresql&user=ann", NOWHERE);
  expect(options).toMatchObject({ path: "/run/postgresql/.s.PGSQL.5432", tls: false, username: "ann" });
  expect(options).not.toHaveProperty("hostname");
  expect(shown).toBe("postgres:///keys?host=/run/postgresql&user=ann");
  expect(targetOf("postgres://ann@localhost:7/keys?host=/run", NOWHERE).options.path).toBe("/run/.s.PGSQL.7");
  expect(targetOf("postgres:///keys?host=/run&user=ann&port=8", NOWHERE).options.path).toBe("/run/.s.PGSQL.8");
});

test("TLS with a verified name is the rule beyond this machine", () => {
  const tlsOf = (spec: string) => targetOf(spec, NOWHERE).options.tls;
  for (const host of ["localhost", "127.0.0.1", "[::1]"]) expect(tlsOf(`postgres://a@${host}/b`)).toBe(false);
  for (const host of ["db.example", "10.0.0.1", "localhost.example", "127.0.0.1.example"]) {
    expect(tlsOf(`postgres://a@${host}/b`)).toEqual({ rejectUnauthorized: true });
  }
  expect(tlsOf("postgres://a@127.0.0.1/b?sslmode=verify-full")).toEqual({ rejectUnauthorized: true });
  expect(tlsOf("postgres://a@db.example/b?sslmode=require")).toEqual({ rejectUnauthorized: false });
  expect(tlsOf("postgres://a@db.example/b?sslmode=disable")).toBe(false);
  expect(tlsOf("postgres://a@db.example/b?sslrootcert=/ca.pem")).toMatchObject({ rejectUnauthorized: true });
});

test("what is malformed is refused without repeating it", () => {
  for (const spec of [
    "postgres://",
    "postgres://host/db",
    "postgres://ann:secret@/db",
    "postgres://ann:secret@host/db?sslmode=prefer",
    "postgres://ann:secret@host/db?options=-c",
    "postgres://ann:secret@host/db?host=relative",
    "postgres://ann:secret%@host/db",
    "postgres://ann:secret@host:port/db",
    "postgres://ann:secret@host/db?port=70000",
  ]) {
    const fault = refusal(spec);
    expect(fault.code).toBe("bad_input");
    expect(fault.message).not.toContain("secret");
  }
});

test("the password comes from the address, PGPASSWORD or a password file, in this order", () => {
  const file = join(directories.make(), "pass");
  const lines = [
    "# a comment",
    "other:*:*:*:of another host",
    "db\\.example:5432:keys:ann:escaped host does not match itself",
    "db.example:5432:keys:ann:right\\:with\\\\signs",
    "*:*:*:*:for all the others",
  ];
  writeFileSync(file, `${lines.join("\n")}\n`, { mode: 0o600 });
  const password = (spec: string, env: Record<string, string>) =>
    targetOf(spec, { ...NOWHERE, ...env }).options.password;
  const env = { PGPASSFILE: file };
  expect(password("postgres://ann@db.example/keys", env)).toBe("escaped host does not match itself");
  expect(password("postgres://ann@db.example:5433/keys", env)).toBe("for all the others");
  expect(password("postgres://ann@db.example/keys", { ...env, PGPASSWORD: "variable" })).toBe("variable");
  expect(password("postgres://ann:own@db.example/keys", { ...env, PGPASSWORD: "variable" })).toBe("own");
  expect(password("postgres:///keys?host=/run&user=ann", env)).toBe("for all the others");
  writeFileSync(file, lines.slice(3).join("\n"));
  expect(password("postgres://ann@db.example/keys", env)).toBe("right:with\\signs");
});

test("a named password file that others may read, or that is not there, is refused", () => {
  const file = join(directories.make(), "pass");
  writeFileSync(file, "*:*:*:*:secret\n");
  chmodSync(file, 0o644);
  expect(refusal("postgres://a@b/c", { PGPASSFILE: file })).toMatchObject({ code: "denied" });
  expect(refusal("postgres://a@b/c", { PGPASSFILE: `${file}.none` })).toMatchObject({ code: "denied" });
});

test("kinds of databases are told apart", () => {
  expect(databaseFile("sqlite:/a/b.db")).toBe("/a/b.db");
  expect(databaseFile("postgres://a@b/c")).toBeUndefined();
  for (const spec of ["", "sqlite:", "keyhold.db", "mysql://a:secret@b/c"]) {
    expect(() => databaseFile(spec)).toThrow(/kind is unknown/);
    expect(() => databaseFile(spec)).not.toThrow(/secret/);
  }
  expect(isPostgres("POSTGRESQL://a@b/c")).toBe(true);
  expect(holdsPassword("postgres://a:b@c/d")).toBe(true);
  expect(holdsPassword("postgres://a@c/d")).toBe(false);
  expect(holdsPassword("sqlite:/a:b@c")).toBe(false);
});
