"""The accelerator's side of external memory (AXI4) and of the host (AXI4-Lite).

What connects to the core; flow and cycles are in each class's docstring. Strobes last one cycle;
"shows in cycle t" is the value between the clock edges that begin and end cycle t.

`bus`: `ReadSignature`, `WriteSignature`, `LiteSignature`, all seen from the master;
``flat_members`` and ``connect_flat`` give a top module ports ``memory_araddr`` and so on.

`descriptor`: `Target`, `Opcode`, `Descriptor`, ``encode``, `Header`: the words of a fetch program.

`fetch.FetchEngine(port_bits, widths, depths, machine_digest, outstanding=8, experts=0)`
    In: start, soft_reset, reload (strobe, strobe, level sampled by start), parameters 64,
    images 64, image_pitch 32, count 32, products 24 (I, zero from the cycle after start);
    with experts also routed 24 (as products), queue_used (one bit per expert), task 8 (sampled with
    start): fetches of an expert wait for ``routed`` and are skipped if its queue is empty.
    Out: memory (`ReadSignature`); write_enable (bit t: target t), write_address, write_data;
    fetches 24 (W: fetches of images, boot's are not counted; zero from the cycle after start);
    booted (rises when the last word of boot can be read), busy (falls by an error too), quiet
    (nothing is outstanding);
    error 4, error_address 64 (both stay until soft reset), program_digest 32; for the watchdog
    outstanding, beat, waiting_address; counters read_beats, product_waits, memory_waits, 32 each.
    The last beat of a fetch arrives in cycle r: its word is written at the end of cycle r + 1, and
    from cycle r + 2 on ``fetches`` counts it and a read of the word may be addressed. A skipped one
    counts as if its last beat came in the cycle it is skipped in, or with the one before it.
`fetch_timeline.FetchTimeline(memory, port_bits, outstanding)`
    The same in arithmetic: ``boot``, ``begin``, ``fetch(ready_cycle, address, beats,
    skipped=False, by_task=False)`` -> cycle in which W shows it, ``loop``.

`store.ResultStore(port_bits, cols, rows, outstanding=4)`
    In: start, soft_reset; with start: first (the run's first image), row (first row),
    results_address 64, pitch 32, count 24 (codes); row_data (cols x 16 bits, one cycle after its
    address, held while row_enable is low).
    Out: memory (`WriteSignature`); row_address, row_enable; busy, done (strobe: memory has answered
    all bursts), taken (strobe: the last row has been read), quiet, error 4, error_address 64,
    outstanding, beat, waiting_address, written_beats 32. A start while busy is ignored.
`store.StoreTimeline(memory, port_bits, cols, outstanding)`
    ``store(start, address, results)`` -> cycle of done.

`control.ControlPort(counters, machine_digest)`
    Slave of `LiteSignature`, ``interrupt``; see its docstring for the core's side.
`onchip.OnChipMemory(bytes, port_bits)`: slave of both signatures, and the host's window to it.
`watchdog.Watchdog()`, `protocol.ProtocolMonitor(port_bits)`, `memory_model.MemoryModel`.
"""
