#!/usr/bin/env python3
"""Labels for the demo's models, out of rendered sites (brim scene --coco N).

    demo_labels.py OUT.json SITE...     one COCO file of all sites beside it: what is at least HIGH pixels high and SEEN visible

Python's own library only."""
import json
import os
import sys

HIGH, WIDE, SEEN = 10, 4, 0.3


def detect(out, sites):
    images, boxes, categories = [], [], None
    for site in sites:
        with open(f"{site}/truth/coco.json") as f:
            c = json.load(f)
        first, categories = len(images), c["categories"]
        for i in c["images"]:
            images.append({"id": first + i["id"], "width": i["width"], "height": i["height"],
                           "file_name": f"{os.path.basename(site)}/images/{i['file_name']}"})
        for a in c["annotations"]:
            if a["visibility"] >= SEEN and a["bbox"][3] >= HIGH and a["bbox"][2] >= WIDE:
                boxes.append({"id": len(boxes) + 1, "image_id": first + a["image_id"], "category_id": a["category_id"],
                              "bbox": a["bbox"], "area": a["area"], "iscrowd": 0})
    with open(out, "w") as f:
        json.dump({"images": images, "annotations": boxes, "categories": categories}, f)
    print(f"{out}: {len(images)} pictures, {len(boxes)} boxes")


if len(sys.argv) < 3:
    sys.exit(__doc__)
detect(sys.argv[1], sys.argv[2:])
