import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Where Debian puts what ordinary users do not have in PATH. */
const SSHD = Bun.which("sshd", { PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin` });
/** A reason why no real server of ssh can run here. */
export const NO_SSHD =
  SSHD === null || ["ssh", "ssh-add", "ssh-keygen"].some((tool) => Bun.which(tool) === null)
    ? "needs sshd, ssh, ssh-add and ssh-keygen"
    : undefined;
/** Compiled into sshd: root's one shuts its unprivileged half in here. */
const PRIVILEGE_DIRECTORY = "/run/sshd";

/** A real sshd on loopback that lets this user in by key. */
export interface Sshd {
  readonly port: number;
  readonly user: string;
  /** The command that logs in with what the agent offers, and runs `true` there. */
  readonly login: readonly string[];
  /** Lets these public keys in, and no others. */
  authorize(...lines: readonly string[]): void;
  /** Everything that it logged so far. */
  log(): string;
  stop(): Promise<void>;
}

/** Starts one with its own keys and configuration in `dir`, as root or as an ordinary user. */
export async function startSshd(dir: string): Promise<Sshd> {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const [hostKey, authorized, known] = ["host", "authorized", "known"].map((name) => join(dir, name)) as [
    string,
    string,
    string,
  ];
  const made = Bun.spawnSync(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", hostKey]);
  if (made.exitCode !== 0) throw new Error(made.stderr.toString());
  writeFileSync(authorized, "", { mode: 0o600 });
  const root = process.getuid?.() === 0;
  let madeDirectory = false;
  if (root) madeDirectory = mkdirSync(PRIVILEGE_DIRECTORY, { recursive: true, mode: 0o755 }) !== undefined;
  const username = Bun.spawnSync(["id", "-un"]).stdout.toString().trim();
  for (let attempt = 0; ; attempt++) {
    const port = freePort();
    const config = join(dir, "config");
    writeFileSync(
      config,
      [
        `ListenAddress 127.0.0.1:${port}`,
        `HostKey ${hostKey}`,
        `AuthorizedKeysFile ${authorized}`,
        "PidFile none",
        "StrictModes no",
        "UsePAM no",
        "PermitRootLogin yes",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "LogLevel VERBOSE",
        "",
      ].join("\n"),
    );
    const child = Bun.spawn([SSHD ?? "sshd", "-D", "-e", "-f", config], {
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
    });
    let log = "";
    const logged = (async () => {
      const decoder = new TextDecoder();
      for await (const part of child.stderr) log += decoder.decode(part, { stream: true });
    })();
    while (!log.includes("Server listening") && child.exitCode === null) await Bun.sleep(10);
    if (child.exitCode !== null) {
      await logged;
      // somebody else took the port meanwhile
      if (log.includes("Cannot bind") && attempt < 5) continue;
      throw new Error(`sshd did not start: ${log}`);
    }
    const [type = "", key = ""] = (await Bun.file(`${hostKey}.pub`).text()).split(" ");
    writeFileSync(known, `[127.0.0.1]:${port} ${type} ${key}\n`);
    const options = {
      BatchMode: "yes",
      ConnectTimeout: "10",
      IdentityFile: "none",
      PreferredAuthentications: "publickey",
      StrictHostKeyChecking: "yes",
      UserKnownHostsFile: known,
      GlobalKnownHostsFile: "none",
    };
    const flags = Object.entries(options).flatMap(([name, value]) => ["-o", `${name}=${value}`]);
    return {
      port,
      user: username,
      login: ["ssh", "-F", "none", ...flags, "-p", String(port), `${username}@127.0.0.1`, "true"],
      authorize: (...lines) => writeFileSync(authorized, lines.map((line) => `${line}\n`).join("")),
      log: () => log,
      stop: async () => {
        child.kill();
        await child.exited;
        if (madeDirectory) rmSync(PRIVILEGE_DIRECTORY, { recursive: true, force: true });
      },
    };
  }
}

function freePort(): number {
  const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => undefined } });
  const { port } = server;
  server.stop(true);
  return port;
}
