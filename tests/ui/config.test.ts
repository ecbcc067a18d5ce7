import { describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { loadSettings, SETTINGS, variableOf } from "../../src/ui/config.ts";
import { directories } from "../../src/ui/paths.ts";
import { run, withDirectory } from "../cli/support.ts";

describe("settings", () => {
  test("flag › variable › --config › user › system › default, each with its origin", async () => {
    await withDirectory((directory) => {
      const write = (name: string, text: string) => {
        writeFileSync(join(directory, name), text, { mode: 0o600 });
        return join(directory, name);
      };
      const systemFile = write("system.json", '{"listen":"system:1","store":"both","dir":"/system","clearAfter":"1m"}');
      const user = write("config.json", '{"listen":"user:1","store":"local","dir":"/user"}');
      const file = write("given.json", '{"listen":"given:1","store":"server"}');
      const sources = {
        env: { KEYHOLD_LISTEN: "env:1" },
        file,
        userDirectory: directory,
        systemFile,
        flags: { profile: "work" },
      };
      const origins = Object.fromEntries(
        loadSettings(sources)
          .effective()
          .map(({ name, value, origin }) => [name, [value, origin]]),
      );
      expect(origins).toMatchObject({
        profile: ["work", "flag"],
        listen: ["env:1", "KEYHOLD_LISTEN"],
        store: ["server", file],
        dir: ["/user", user],
        clearAfter: [60_000, systemFile],
        registration: [null, "default"],
      });
      expect(loadSettings(sources).get("listen", "flag:1")).toBe("flag:1");
      expect(loadSettings(sources).get("listen", null)).toBe("env:1");
    });
  });

  test("what is malformed is refused by name, never by content", async () => {
    await withDirectory((directory) => {
      const path = join(directory, "config.json");
      const load = (env = {}) =>
        loadSettings({ env, file: null, userDirectory: directory, systemFile: join(directory, "none") });
      expect(load().files).toEqual([]);
      for (const [text, message] of [
        ["{hunter2", /is not JSON/],
        ["[]", /is not a JSON object/],
        ['{"listne":"x"}', /unknown setting "listne".*did you mean "listen"/],
        ['{"__proto__":"x"}', /unknown setting/],
        ['{"listen":1}', /must be text/],
        ['{"clearAfter":"hunter2"}', /must be a duration/],
        ['{"store":"hunter2"}', /one of server, local, both/],
      ] as const) {
        writeFileSync(path, text, { mode: 0o600 });
        const fails = () => load().effective();
        expect(fails).toThrow(expect.objectContaining({ code: "bad_input", message: expect.stringMatching(message) }));
        expect(fails).not.toThrow("hunter2");
      }
      writeFileSync(path, "{}");
      chmodSync(path, 0o666);
      expect(() => load()).toThrow("changed by anybody");
      chmodSync(path, 0o600);
      expect(() => load({ KEYHOLD_STORE: "moon" }).effective()).toThrow("KEYHOLD_STORE must be one of");
    });
  });

  test("--config must exist; the working directory is never read", async () => {
    const missing = await run(["config", "show", "--config", "/nonexistent/config.json", "--json"]);
    expect([missing.code, missing.out]).toEqual([3, ""]);
    await withDirectory(async (directory) => {
      writeFileSync(join(directory, "config.json"), "{broken");
      mkdirSync(join(directory, "home"));
      const ran = await run(["config", "show", "--origin", "--json"], {
        env: { KEYHOLD_HOME: join(directory, "home"), PWD: directory },
      });
      expect(ran.code).toBe(0);
      expect(JSON.parse(ran.out).data.items.map(({ name }: { name: string }) => name)).toEqual(Object.keys(SETTINGS));
    });
  });

  test("variables", () => expect(variableOf("clearAfter")).toBe("KEYHOLD_CLEAR_AFTER"));
});

describe("directories", () => {
  test("KEYHOLD_HOME holds everything", () => {
    expect(directories({ KEYHOLD_HOME: "/k", XDG_DATA_HOME: "/x" }, "linux", "/home/u")).toEqual({
      config: "/k/config",
      data: "/k/data",
      state: "/k/state",
      runtime: "/k/run",
      server: "/k/server",
    });
  });
  test("XDG, relative paths ignored", () => {
    const env = { XDG_CONFIG_HOME: "/c", XDG_DATA_HOME: "relative", XDG_RUNTIME_DIR: "/run/user/1" };
    expect(directories(env, "linux", "/home/u")).toEqual({
      config: "/c/keyhold",
      data: "/home/u/.local/share/keyhold",
      state: "/home/u/.local/state/keyhold",
      runtime: "/run/user/1/keyhold",
      server: "/home/u/.local/share/keyhold/server",
    });
    expect(directories({}, "linux", "/home/u").runtime).toBe("/home/u/.local/state/keyhold/run");
  });
  test("macOS", () => {
    expect(directories({}, "darwin", "/Users/u").data).toBe("/Users/u/Library/Application Support/keyhold/data");
  });
});
