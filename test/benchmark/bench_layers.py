"""What a patch release re-sends: the real releases replayed, plan by plan, against the baselines and the floor."""

from support.replay import IMAGES, Planner, Replay, floor, load, name_hash, one_layer, ours, replay, size_ranked

MOST_MEDIAN = {"cpu": 1.75, "gpu": 1.5}
"""The goal at 100 layers, times the floor."""
MOST_P90 = 3.0


def test_what_patch_releases_send_again() -> None:
    """Print total, median and p90 of the bytes that patch releases re-send, for each kind of plan."""
    releases = load()
    plans: dict[str, Planner] = {"floor (a layer per package)": floor, "one layer": one_layer}
    for budget in (64, 100):
        plans |= {f"name-hash {budget}": name_hash(budget), f"size-ranked {budget}": size_ranked(budget)}
        plans |= {f"lockyard {budget}": ours(releases, budget)}
    done: dict[str, Replay] = {name: replay(releases, planner) for name, planner in plans.items()}
    least = done["floor (a layer per package)"]
    print(
        f"\n{len(releases.releases)} releases; sizes known of {releases.known:.0%} of the packages, the others estimated"
    )
    for majors, what in (((0, 1, 2), "all lines"), ((0, 1), "lines 0 and 1"), ((2,), "line 2")):
        versions = releases.patches(majors)
        print(f"{what}, {len(versions)} patch releases: MB (times the floor)    total | median | p90")
        for image_type, image in IMAGES.items():
            for name, result in done.items():
                pairs = zip(result.figures(image, versions), least.figures(image, versions), strict=True)
                figures = " | ".join(f"{mine / 1e6:9,.0f} ({mine / best:7.4f})" for mine, best in pairs)
                print(f"  {image_type} {name:28} {figures}")
    for budget in (64, 100):
        result = done[f"lockyard {budget}"]
        print(
            f"lockyard {budget}: at most {result.most_layers} layers in an image, slowest plan {result.slowest:.2f} s of CPU"
        )
        assert result.most_layers <= budget
    for image in IMAGES.values():
        mine = done["lockyard 100"].figures(image, releases.patches((0, 1, 2)))
        for name in ("one layer", "name-hash 100", "size-ranked 100"):
            others = done[name].figures(image, releases.patches((0, 1, 2)))
            assert all(a < b for a, b in zip(mine, others, strict=True)), f"{image}: {name} is better"
    for image_type, image in IMAGES.items():
        versions = releases.patches((0, 1, 2))
        pairs = zip(done["lockyard 100"].figures(image, versions), least.figures(image, versions), strict=True)
        _, median, high = (mine / best for mine, best in pairs)
        assert median <= MOST_MEDIAN[image_type], f"{image_type}: the median is {median:.4f} times the floor"
        assert high <= MOST_P90, f"{image_type}: the 90th percentile is {high:.4f} times the floor"
