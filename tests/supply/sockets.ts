import { readFileSync } from "node:fs";

/** The system calls that name a destination, and the one that would hide them. */
export const TRACED = "connect,sendto,sendmsg,sendmmsg,io_uring_setup";

function destination(call: string): string | undefined {
  const family = /sa_family=(AF_[A-Z0-9]+)/.exec(call)?.[1];
  if (family === undefined) {
    // on a connected socket no destination is given
    if (/^(?:sendto|sendmsg|sendmmsg)\(/.test(call) && /NULL|msg_name=NULL|unfinished/.test(call)) return undefined;
    return `unreadable ${call}`;
  }
  if (family === "AF_UNIX") return `unix ${/sun_path=@?"([^"]*)"/.exec(call)?.[1] ?? "?"}`;
  const port = /sin6?_port=htons\((\d+)\)/.exec(call)?.[1] ?? "?";
  if (family === "AF_INET") return `inet ${/inet_addr\("([^"]+)"\)/.exec(call)?.[1] ?? "?"}:${port}`;
  if (family === "AF_INET6") return `inet [${/inet_pton\(AF_INET6, "([^"]+)"/.exec(call)?.[1] ?? "?"}]:${port}`;
  // how the kernel is asked for the addresses of this machine
  return family === "AF_NETLINK" ? undefined : `${family} ${call}`;
}

/** Every destination in what `strace -f -e trace=…` wrote ({@link TRACED}), sorted. */
export function destinations(trace: string): readonly string[] {
  const found = new Set<string>();
  for (const line of trace.split("\n")) {
    const call = /^(?:\d+ +)?((?:connect|sendto|sendmsg|sendmmsg|io_uring_setup)\(.*)$/.exec(line)?.[1];
    const to = call === undefined ? undefined : destination(call);
    if (to !== undefined) found.add(to);
  }
  return [...found].sort();
}

/** Waits until strace has written of the end of every process in the file, and gives its text. */
export async function finishedTrace(file: string): Promise<string> {
  for (let tries = 0; tries < 1_500; tries++) {
    const text = readFileSync(file, "utf8");
    const pids = new Set(text.match(/^\d+/gm));
    const ended = new Set([...text.matchAll(/^(\d+) +\+\+\+ (?:exited|killed)/gm)].map(([, pid = ""]) => pid));
    if (pids.size > 0 && pids.size === ended.size) return text;
    await Bun.sleep(20);
  }
  throw new Error(`${file}: a traced process does not end`);
}
