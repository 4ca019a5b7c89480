/** What the command line takes, and how it ends. */

export const EXIT_OK = 0;
/** Something was found or not found: problems, losses, no such key. */
export const EXIT_FOUND = 1;
/** Wrong usage, or the command could not run. */
export const EXIT_FAILED = 2;

export class UsageError extends Error {
  override readonly name = 'UsageError';
}

export const USAGE = `usage: flashvector COMMAND [options]

A node
  serve                    runs a node (what \`npm start\` does); settings as flags, see \`flashvector config --help\`
  config                   prints the effective settings and where each came from, secrets masked

Data, in a folder (DIR) or of a running node (--connect host:port)
  get KEY                  prints a value; exit code 1 when there is none
  put KEY VALUE            stores a string, or in a folder with --value-json what the JSON says
  del KEY                  removes a key; exit code 1 when there is none
  scan                     prints keys and values in order: --prefix --gt --gte --lt --lte --limit --reverse --keys
  load FILE --key FIELD    loads lines of JSON, also .gz; FIELD names the key in each, or --key-prefix P with line numbers,
                           or --dumped for what dump has written
  dump                     prints all entries as lines of JSON, --out FILE[.gz]
  stats                    prints statistics; --watch repeats them every second
  bench                    measures gets and puts: --count N --value-bytes N

A store that nobody has open
  backup DIR --out NEW     copies a store
  verify DIR               reads every byte of a closed store, reports problems with their positions
  repair DIR --out NEW     saves whatever verifies into a new store, lists what was lost
  inspect DIR              prints checkpoints, segments, frames and records

Options
  --dir DIR                the folder for data commands; ./data
  --connect HOST:PORT      a running node instead; the password is read from FLASHVECTOR_PASSWORD
  --tls                    with --connect: over TLS
  --json                   output for programs
  --help                   this text

Examples
  flashvector serve --listen-addr :8080 --data-dir ./data
  flashvector put greeting hello --connect 127.0.0.1:8080
  flashvector scan --prefix user: --limit 10 --json
  flashvector load packages.ndjson.gz --key Package

Exit code: 0 all is well; 1 problems or losses found, or no such key; 2 wrong usage, or the command could not run.`;
